//! Ranges of shards that are on their way: who wants the same meanwhile waits for it instead of asking again.
//!
//! A reader of a chunk that lacks a shard rebuilds it from the shards which it wants anyway, at the same time. What flies is one request to one target
//! and never itself waits for another flight, so there are no circles.

use super::shard_fetch::FetchError;
use bytes::Bytes;
use cairn_common::collections::FastMap;
use cairn_common::ids::{ChunkId, TargetId};
use cairn_common::scheme::Scheme;
use cairn_runtime::task::BoxFuture;
use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// What is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    pub chunk: ChunkId,
    /// The same shard of another scheme holds other bytes: a chunk may have moved to another pool since somebody's extents were read.
    pub scheme: Scheme,
    pub shard: u8,
    pub target: TargetId,
}

/// Shared by all who wait for it.
type Arrival = Shared<BoxFuture<'static, Result<Bytes, Arc<FetchError>>>>;

struct Flight {
    range: Range<u32>,
    number: u64,
    arrival: Arrival,
}

/// At most one for each route; another one to the same place, of another range, goes alone.
#[derive(Default)]
pub struct Flights(Mutex<State>);

#[derive(Default)]
struct State {
    flights: FastMap<Route, Flight>,
    started: u64,
}

/// Takes the flight off the list when the one who started it has what it wanted, or does not want it any more. Others who wait for it go on.
struct Landing<'a> {
    flights: &'a Flights,
    route: Route,
    number: u64,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.0.lock();
        let landed = match state.flights.get(&self.route) {
            Some(flight) if flight.number == self.number => state.flights.remove(&self.route),
            Some(_) | None => None,
        };
        drop(state);
        // Out of the lock: it may be the last that holds the request.
        drop(landed);
    }
}

impl Flights {
    /// The bytes of `range`: from a flight that brings them already, or by `fetch`.
    pub async fn share(
        &self,
        route: Route,
        range: Range<u32>,
        fetch: impl FnOnce() -> BoxFuture<'static, Result<Bytes, FetchError>>,
    ) -> Result<Bytes, FetchError> {
        if let Some((start, arrival)) = self.find(&route, &range) {
            let bytes = arrival.await.map_err(FetchError::Shared)?;
            return Ok(bytes.slice((range.start - start) as usize..(range.end - start) as usize));
        }
        let arrival: Arrival = FutureExt::boxed(fetch().map(|result| result.map_err(Arc::new))).shared();
        let _landing = self.start(route, range, arrival.clone());
        arrival.await.map_err(FetchError::Shared)
    }

    fn find(&self, route: &Route, range: &Range<u32>) -> Option<(u32, Arrival)> {
        let state = self.0.lock();
        let flight = state.flights.get(route)?;
        let covers = flight.range.start <= range.start && range.end <= flight.range.end;
        covers.then(|| (flight.range.start, flight.arrival.clone()))
    }

    fn start(&self, route: Route, range: Range<u32>, arrival: Arrival) -> Landing<'_> {
        let mut state = self.0.lock();
        state.started += 1;
        let number = state.started;
        state.flights.entry(route).or_insert(Flight { range, number, arrival });
        Landing { flights: self, route, number }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flights, Route};
    use crate::data::shard_fetch::FetchError;
    use bytes::Bytes;
    use cairn_common::ids::{ChunkId, TargetId};
    use cairn_common::scheme::Scheme;
    use futures_util::FutureExt;
    use futures_util::future::poll_immediate;
    use tokio::sync::oneshot;

    fn route(parity: u8) -> Route {
        Route { chunk: ChunkId([1; 32]), scheme: Scheme::new(2, parity).expect("a scheme"), shard: 2, target: TargetId(3) }
    }

    #[tokio::test]
    async fn the_same_is_asked_for_once() {
        let flights = Flights::default();
        let (answer, asked) = oneshot::channel::<Bytes>();
        let fetch = move || asked.map(|bytes| bytes.map_err(|_| FetchError::Kind)).boxed();
        let mut first = Box::pin(flights.share(route(1), 0..8, fetch));
        assert!(poll_immediate(&mut first).await.is_none());
        let mut second = Box::pin(flights.share(route(1), 2..4, || panic!("asked a second time")));
        assert!(poll_immediate(&mut second).await.is_none());
        let other = flights.share(route(2), 2..4, || async { Ok(Bytes::from_static(b"xy")) }.boxed());
        assert_eq!(other.await.expect("arrives"), "xy", "the same shard of another scheme is something else");
        answer.send(Bytes::from_static(b"abcdefgh")).expect("somebody waits");
        assert_eq!(second.await.expect("arrives"), "cd");
        assert_eq!(first.await.expect("arrives"), "abcdefgh");
        assert!(flights.0.lock().flights.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_not_left_when_the_first_one_goes() {
        let flights = Flights::default();
        let (answer, asked) = oneshot::channel::<Bytes>();
        let fetch = move || asked.map(|bytes| bytes.map_err(|_| FetchError::Kind)).boxed();
        let mut first = Box::pin(flights.share(route(1), 0..2, fetch));
        assert!(poll_immediate(&mut first).await.is_none());
        let mut second = Box::pin(flights.share(route(1), 0..2, || panic!("asked a second time")));
        assert!(poll_immediate(&mut second).await.is_none());
        drop(first);
        answer.send(Bytes::from_static(b"ab")).expect("somebody waits");
        assert_eq!(second.await.expect("arrives"), "ab");
        let anew = flights.share(route(1), 0..2, || async { Ok(Bytes::from_static(b"xy")) }.boxed());
        assert_eq!(anew.await.expect("asked anew"), "xy");
    }
}
