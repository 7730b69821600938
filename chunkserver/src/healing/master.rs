//! The master, as healing sees it: who to ask over the link, and the newest cluster map.

use bytes::Bytes;
use cairn_common::codec;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{ChunkId, Incarnation, MapEpoch, ServerId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{CompleteSlot, MasterAnswer, MasterError, MasterReply, MasterRequest};
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, Message};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the master may take to answer: a listing may wait for its disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the master did not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("the master is away")]
    Away,
    #[error("the master refuses: {0}")]
    Refused(#[from] MasterError),
    #[error("the master's answer makes no sense: {0}")]
    Nonsense(String),
}

/// A page of the master's list of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPage {
    pub chunks: Vec<ChunkInfo>,
    /// Where the next page begins; `None` if this one reaches to the end of what was asked for.
    pub next: Option<ChunkId>,
    /// The master's time before it looked.
    pub now: Timestamp,
    pub epoch: MapEpoch,
}

#[derive(Clone)]
struct Contact {
    connection: Arc<dyn Connection>,
    server: ServerId,
}

/// Shared by the link, which keeps it up to date, and all that heals.
pub struct MasterHandle {
    runtime: Runtime,
    incarnation: Incarnation,
    contact: Mutex<Option<Contact>>,
    map: watch::Sender<Arc<ClusterMap>>,
}

impl MasterHandle {
    pub fn new(runtime: Runtime, incarnation: Incarnation) -> Self {
        Self { runtime, incarnation, contact: Mutex::new(None), map: watch::Sender::new(Arc::default()) }
    }

    /// The link has registered us as `server`.
    pub fn found(&self, connection: &Arc<dyn Connection>, server: ServerId) {
        *self.contact.lock() = Some(Contact { connection: connection.clone(), server });
    }

    pub fn lost(&self) {
        *self.contact.lock() = None;
    }

    pub fn take_map(&self, map: ClusterMap) {
        self.map.send_replace(Arc::new(map));
    }

    /// The newest map; empty before the first.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.map.borrow().clone()
    }

    pub fn maps(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Chunks from `from` on and before `until`.
    pub async fn chunks(&self, from: ChunkId, until: Option<ChunkId>, limit: u32) -> Result<ChunkPage, AskError> {
        match self.ask(|_| MasterRequest::Chunks { from, until, limit }).await? {
            MasterReply::Chunks { chunks, end, now, epoch } => {
                let is_in_order = chunks.windows(2).all(|pair| pair[0].id < pair[1].id);
                let is_inside = |chunk: &ChunkInfo| chunk.id >= from && until.is_none_or(|until| chunk.id < until);
                if !is_in_order || !chunks.iter().all(is_inside) || (chunks.is_empty() && !end) {
                    return Err(AskError::Nonsense("a page of chunks that were not asked for".to_owned()));
                }
                let next = if end { None } else { chunks.last().and_then(|last| last.id.next()) };
                Ok(ChunkPage { chunks, next, now, epoch })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// How a chunk is stored; `None` if the master does not know it.
    pub async fn chunk(&self, id: ChunkId) -> Result<Option<(ChunkInfo, Timestamp)>, AskError> {
        let page = self.chunks(id, id.next(), 1).await?;
        Ok(page.chunks.first().map(|chunk| (*chunk, page.now)))
    }

    /// Tells the master that slots are complete.
    pub async fn complete(&self, slots: Vec<CompleteSlot>) -> Result<(), AskError> {
        let incarnation = self.incarnation;
        match self.ask(|server| MasterRequest::SlotsComplete { server, incarnation, slots }).await? {
            MasterReply::SlotsNoted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: impl FnOnce(ServerId) -> MasterRequest) -> Result<MasterReply, AskError> {
        let Contact { connection, server } = self.contact.lock().clone().ok_or(AskError::Away)?;
        let message = Message { head: codec::encode(&request(server)).into(), body: Bytes::new() };
        let answer = self.runtime.timeout(ANSWER_TIMEOUT, connection.call(message)).await;
        let answer = answer.map_err(|_| AskError::Away)?.map_err(|_| AskError::Away)?;
        let answer: MasterAnswer =
            codec::decode("an answer of the master", &answer.head).map_err(|error| AskError::Nonsense(error.to_string()))?;
        Ok(answer?)
    }
}

fn unexpected(reply: &MasterReply) -> AskError {
    AskError::Nonsense(format!("{reply:?}"))
}
