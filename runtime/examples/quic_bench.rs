//! What the network of the real machine does over loopback: throughput of 1 MiB bodies and latency of small calls.
//!
//! `cargo run --release -p cairn-runtime --example quic_bench [SPIN_US]` runs client and server as two role
//! threads of one process, which spin for so long before they park.

use bytes::Bytes;
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::network::{Connection, Credentials, Identity, IncomingCall, Message, Trust};
use cairn_runtime::pki::{Authority, generate_key};
use cairn_runtime::real::{RoleSettings, run_role_with};
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const BODY_BYTES: usize = 1 << 20;
const RUN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 2;

fn main() {
    let (send_address, receive_address) = std::sync::mpsc::channel();
    let (credentials_send, credentials_receive) = std::sync::mpsc::channel();
    let settings = RoleSettings { spin: spin(), ..RoleSettings::default() };
    let server = run_role_with(settings, "server", move |runtime| async move {
        let authority = Authority::create(runtime.wall()).unwrap();
        credentials_send.send(credentials(&runtime, &authority, Role::Client)).unwrap();
        serve(runtime.clone(), credentials(&runtime, &authority, Role::Chunkserver), send_address).await;
    });
    let (address, credentials) = (receive_address.recv().unwrap(), credentials_receive.recv().unwrap());
    let client = run_role_with(settings, "client", move |runtime| measure(runtime, credentials, address));
    client.unwrap().join().unwrap();
    drop(server);
}

fn spin() -> Duration {
    let micros = std::env::args().nth(1).map(|argument| argument.parse().expect("the argument is how long to spin, in us"));
    Duration::from_micros(micros.unwrap_or(0))
}

fn credentials(runtime: &Runtime, authority: &Authority, role: Role) -> Credentials {
    let key = generate_key().unwrap();
    let certificate = authority.issue(role, "bench", &key.public_key_spki_der, runtime.wall()).unwrap();
    let identity = Identity { role, name: "bench".to_owned(), certificate, private_key: key.private_key_der };
    Credentials { identity: Some(identity), trust: Trust::Authority(authority.certificate_der().to_vec()) }
}

/// Answers a request with a body by 8 bytes, and one without by as many bytes as its head asks for.
async fn serve(runtime: Runtime, credentials: Credentials, address: std::sync::mpsc::Sender<SocketAddr>) {
    let endpoint = runtime.network.bind("127.0.0.1:0".parse().unwrap(), credentials).unwrap();
    address.send(endpoint.local_address()).unwrap();
    let content = Bytes::from(vec![7; BODY_BYTES]);
    while let Some(connection) = endpoint.accept().await {
        let (calls, content) = (runtime.clone(), content.clone());
        runtime.spawn("connection", async move {
            while let Some(IncomingCall { request, reply }) = connection.accept().await {
                let wanted = u32::from_le_bytes(request.head[..4].try_into().unwrap()) as usize;
                let answer = if wanted <= 300 {
                    Message { head: content.slice(..wanted), body: Bytes::new() }
                } else {
                    Message { head: content.slice(..40), body: content.slice(..wanted) }
                };
                calls.spawn("reply", reply.send(answer));
            }
        });
    }
}

async fn measure(runtime: Runtime, credentials: Credentials, address: SocketAddr) {
    let endpoint = runtime.network.bind("127.0.0.1:0".parse().unwrap(), credentials).unwrap();
    let connection = endpoint.connect(address, Role::Chunkserver).await.unwrap();
    for round in 0..ROUNDS {
        println!("round {round}");
        for (name, wanted, body) in [("write 1 MiB", 8, BODY_BYTES), ("read 1 MiB", BODY_BYTES, 0)] {
            for outstanding in [1, 4] {
                let result = run_calls(&runtime, &connection, request(200, wanted, body), outstanding).await;
                let megabytes = result.latencies.len() as f64 * BODY_BYTES as f64 / 1e6;
                result.print(&format!("{name}, {outstanding} outstanding: {:.0} MB/s", megabytes / result.seconds));
            }
        }
        for outstanding in [1, 32, 128] {
            let result = run_calls(&runtime, &connection, request(200, 300, 0), outstanding).await;
            let rate = result.latencies.len() as f64 / result.seconds;
            result.print(&format!("200 B / 300 B, {outstanding} outstanding: {rate:.0}/s"));
        }
    }
}

fn request(head: usize, wanted: usize, body: usize) -> Message {
    let mut head = vec![0; head];
    head[..4].copy_from_slice(&(wanted as u32).to_le_bytes());
    Message { head: Bytes::from(head), body: Bytes::from(vec![5; body]) }
}

struct Outcome {
    /// Nanoseconds, in order.
    latencies: Vec<u64>,
    seconds: f64,
    cpu_seconds: f64,
}

impl Outcome {
    fn print(&self, title: &str) {
        let at = |share: f64| self.latencies[((self.latencies.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        let per_call = self.cpu_seconds * 1e6 / self.latencies.len() as f64;
        println!(
            "  {title}; p50 {:.0} us, p99 {:.0} us; {per_call:.1} us CPU a call, {:.2} CPUs",
            at(0.5),
            at(0.99),
            self.cpu_seconds / self.seconds
        );
    }
}

async fn run_calls(runtime: &Runtime, connection: &Arc<dyn Connection>, request: Message, outstanding: usize) -> Outcome {
    let (started, cpu) = (runtime.now(), cpu_seconds());
    let lanes = (0..outstanding).map(|_| {
        let request = request.clone();
        async move {
            let mut latencies = Vec::new();
            while runtime.now().since(started) < RUN {
                let sent = runtime.now();
                connection.call(request.clone()).await.unwrap();
                latencies.push(runtime.now().since(sent).as_nanos() as u64);
            }
            latencies
        }
    });
    let mut latencies: Vec<u64> = join_all(lanes).await.concat();
    latencies.sort_unstable();
    let seconds = runtime.now().since(started).as_secs_f64();
    Outcome { latencies, seconds, cpu_seconds: cpu_seconds() - cpu }
}

/// Of this process, user and system.
fn cpu_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
