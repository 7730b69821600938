//! The link to the master: announce, report, and begin again whenever it breaks.
//!
//! | state | event | next |
//! |---|---|---|
//! | apart | connected | joining |
//! | apart | no connection | apart, after a pause that grows up to `PAUSE_MAX` |
//! | joining | registered | reporting |
//! | joining | refused, or no answer | apart |
//! | reporting | heartbeat answered | reporting, after `HEARTBEAT_INTERVAL` |
//! | reporting | heartbeat refused (the master has restarted, or forgot us) | joining |
//! | reporting | no answer in time, or connection lost | apart |
//!
//! The master may ask on the same connection what anybody may ask on ours.

use super::Shared;
use super::serve::Server;
use crate::healing::master::MasterHandle;
use cairn_common::codec;
use cairn_common::ids::{MapEpoch, ServerId, TargetId};
use cairn_common::limits::HEARTBEAT_INTERVAL;
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Role, TargetAnnouncement};
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{Connection, Endpoint, Message};
use std::sync::Arc;
use std::time::Duration;

/// How long the master may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause after a failure, and the longest. Short: until we have reported, clients are told that we are away.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How often the same trouble is logged again.
const COMPLAIN_INTERVAL: Duration = Duration::from_secs(60);

/// The task that keeps the link.
pub struct MasterLink {
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
    server: Server,
    pause: Duration,
    /// Since when there is trouble that was logged; `None` while all is well.
    complained: Option<Moment>,
}

/// Why the link broke.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("{0}")]
    Unreachable(String),
    #[error("the master refuses: {0}")]
    Refused(#[from] MasterError),
    #[error("the master's answer makes no sense: {0}")]
    Nonsense(String),
    #[error("cannot remember the id of a target: {0}")]
    Disk(#[from] std::io::Error),
}

impl MasterLink {
    pub(super) fn new(shared: Arc<Shared>, endpoint: Arc<dyn Endpoint>, server: Server) -> Self {
        Self { shared, endpoint, server, pause: PAUSE_MIN, complained: None }
    }

    pub async fn run(mut self) {
        loop {
            let Err(error) = self.keep_up().await;
            self.complain(&error);
            // Up to half of it more, so that servers do not come all at once after the master was away.
            let spread = self.shared.runtime.random_u64() % (self.pause.as_nanos() as u64 / 2).max(1);
            self.shared.runtime.sleep(self.pause + Duration::from_nanos(spread)).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// Connects, registers and reports until something breaks.
    async fn keep_up(&mut self) -> Result<std::convert::Infallible, LinkError> {
        let connection = self.connect().await?;
        let _serving = self.shared.runtime.spawn("chunkserver for the master", self.server.clone().serve(connection.clone()));
        let result = self.join_and_report(&connection).await;
        self.master().lost();
        connection.close("the link is begun anew");
        result
    }

    async fn join_and_report(&mut self, connection: &Arc<dyn Connection>) -> Result<std::convert::Infallible, LinkError> {
        loop {
            let server = self.register(connection).await?;
            self.note_success(server);
            self.master().found(connection, server);
            // The master may have lost its last words, and with them a map.
            self.fetch_map(connection, MapEpoch(0)).await?;
            let refusal = self.report(connection, server).await?;
            tracing::info!("the master does not know us any more ({refusal}): registering again");
            self.shared.runtime.sleep(PAUSE_MIN).await;
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, LinkError> {
        let address = self.shared.settings.master;
        let connect = self.endpoint.connect(address, Role::Master);
        let unreachable = |reason: String| LinkError::Unreachable(format!("cannot reach the master at {address}: {reason}"));
        match self.shared.runtime.timeout(CONNECT_TIMEOUT, connect).await {
            Ok(connected) => connected.map_err(|error| unreachable(error.to_string())),
            Err(elapsed) => Err(unreachable(elapsed.to_string())),
        }
    }

    /// Announces all targets and remembers the ids they get.
    async fn register(&self, connection: &Arc<dyn Connection>) -> Result<ServerId, LinkError> {
        let announce = |target: &crate::target::Target| {
            let identity = target.identity();
            TargetAnnouncement { uuid: identity.uuid.0, id: identity.id, capacity_bytes: target.capacity_bytes() }
        };
        let request = MasterRequest::RegisterServer {
            address: self.endpoint.local_address(),
            incarnation: self.shared.incarnation,
            labels: self.shared.settings.labels.clone(),
            targets: self.shared.targets.iter().map(announce).collect(),
        };
        match self.ask(connection, &request).await? {
            MasterReply::Registered { server, targets } => {
                self.take_ids(&targets).await?;
                Ok(server)
            }
            other => Err(LinkError::Nonsense(format!("{other:?} to a registration"))),
        }
    }

    async fn take_ids(&self, ids: &[TargetId]) -> Result<(), LinkError> {
        if ids.len() != self.shared.targets.len() {
            return Err(LinkError::Nonsense(format!("{} ids for {} targets", ids.len(), self.shared.targets.len())));
        }
        for (target, id) in self.shared.targets.iter().zip(ids) {
            let known = target.identity().id;
            if known != Some(*id) {
                if let Some(known) = known {
                    tracing::warn!("{} was {known} and is now {id}", target.directory().display());
                }
                target.set_id(*id).await?;
            }
        }
        Ok(())
    }

    /// Reports until the master refuses; that refusal is the result.
    async fn report(&mut self, connection: &Arc<dyn Connection>, server: ServerId) -> Result<MasterError, LinkError> {
        loop {
            let request = MasterRequest::Heartbeat {
                server,
                incarnation: self.shared.incarnation,
                known: self.master().map().epoch,
                targets: self.shared.healer.status(),
                load: Box::new(self.shared.load()),
            };
            match self.ask(connection, &request).await {
                Ok(MasterReply::Heartbeat { epoch }) => {
                    if epoch != self.master().map().epoch {
                        self.fetch_map(connection, self.master().map().epoch).await?;
                    }
                }
                Ok(other) => return Err(LinkError::Nonsense(format!("{other:?} to a heartbeat"))),
                Err(LinkError::Refused(refusal)) => return Ok(refusal),
                Err(error) => return Err(error),
            }
            self.shared.runtime.sleep(HEARTBEAT_INTERVAL).await;
        }
    }

    fn master(&self) -> &MasterHandle {
        &self.shared.healer.master
    }

    /// Fetches the map if it is another than the known one.
    async fn fetch_map(&self, connection: &Arc<dyn Connection>, known: MapEpoch) -> Result<(), LinkError> {
        match self.ask(connection, &MasterRequest::Map { known }).await? {
            MasterReply::Map(map) => {
                map.into_iter().for_each(|map| self.master().take_map(map));
                Ok(())
            }
            other => Err(LinkError::Nonsense(format!("{other:?} to a question for the map"))),
        }
    }

    async fn ask(&self, connection: &Arc<dyn Connection>, request: &MasterRequest) -> Result<MasterReply, LinkError> {
        let message = Message { head: codec::encode(request).into(), body: bytes::Bytes::new() };
        let unreachable = |reason: String| LinkError::Unreachable(format!("the master does not answer: {reason}"));
        let answer = self.shared.runtime.timeout(ANSWER_TIMEOUT, connection.call(message)).await;
        let answer = answer.map_err(|elapsed| unreachable(elapsed.to_string()))?.map_err(|error| unreachable(error.to_string()))?;
        let answer: MasterAnswer =
            codec::decode("an answer of the master", &answer.head).map_err(|error| LinkError::Nonsense(error.to_string()))?;
        Ok(answer?)
    }

    fn note_success(&mut self, server: ServerId) {
        tracing::info!("registered with the master at {} as {server}", self.shared.settings.master);
        self.pause = PAUSE_MIN;
        self.complained = None;
    }

    /// Logs trouble once, and again every now and then.
    fn complain(&mut self, error: &LinkError) {
        let now = self.shared.runtime.now();
        if self.complained.is_none_or(|last| now.since(last) >= COMPLAIN_INTERVAL) {
            tracing::warn!("{error}; trying again until it works");
            self.complained = Some(now);
        }
    }
}
