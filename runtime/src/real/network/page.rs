//! A page over HTTP/1.1: as much of it as a scraper or `curl` needs. One request per connection; how many connections there are, how
//! much each may say and how long it may take are all bounded, so that a stranger costs at most that.

#![expect(clippy::disallowed_types, reason = "this is what Runtime::network stands on")]

use super::within;
use crate::network::{ConnectError, PageSource, Published};
use crate::real::executor::TokioExecutor;
use crate::task::Executor;
use cairn_common::metrics::exposition::CONTENT_TYPE;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Connections that are served at once; more wait in the kernel.
const CONNECTIONS_MAX: usize = 8;
/// The longest request, header lines included.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long one exchange may take.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);
/// After a connection could not be taken (no descriptors left).
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);

/// See `Network::publish`.
pub fn publish(handle: &Handle, address: SocketAddr, page: PageSource) -> Result<Published, ConnectError> {
    let refused = |error: io::Error| ConnectError::Local { address, reason: reason(&error) };
    let (listener, address) = listen(handle, address).map_err(refused)?;
    let executor = TokioExecutor::new(handle.clone());
    let showing = executor.clone().spawn("page", Box::pin(show(executor, listener, page)));
    Ok(Published::new(address, showing.abort_on_drop()))
}

fn listen(handle: &Handle, address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let _context = handle.enter();
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the TCP port is in use: choose another port, or end the process that listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "the address is none of this machine's".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not use the port: choose one from 1024 on".to_owned(),
        _ => error.to_string(),
    }
}

async fn show(executor: TokioExecutor, listener: TcpListener, page: PageSource) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(turn) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let page = page.clone();
                let exchange = async move {
                    // Who is too slow, or breaks off, has seen enough.
                    let _ = within(EXCHANGE_LIMIT, exchange(&stream, &page)).await;
                    drop(turn);
                };
                executor.spawn("page exchange", Box::pin(exchange));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for the page could not be taken");
                let _: Option<()> = within(TROUBLE_PAUSE, std::future::pending()).await;
            }
        }
    }
}

async fn exchange(stream: &TcpStream, page: &PageSource) -> io::Result<()> {
    let Some(request) = read_head(stream).await? else {
        return write(stream, &answer("431 Request Header Fields Too Large", "the request is too long\n", true)).await;
    };
    let answer = match Asked::of(&request) {
        Asked::Page { with_body } => answer("200 OK", &page(), with_body),
        Asked::Elsewhere => answer("404 Not Found", "there is /metrics and nothing else\n", true),
        Asked::Otherwise => answer("405 Method Not Allowed", "only GET and HEAD are understood\n", true),
        Asked::Nonsense => answer("400 Bad Request", "this is not HTTP\n", true),
    };
    write(stream, &answer).await
}

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Page { with_body: bool },
    Elsewhere,
    Otherwise,
    Nonsense,
}

impl Asked {
    fn of(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
        let words: Vec<&str> = std::str::from_utf8(line).unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else { return Asked::Nonsense };
        if !version.starts_with("HTTP/1.") {
            return Asked::Nonsense;
        }
        let path = target.split('?').next().unwrap_or_default();
        match (method, path) {
            ("GET" | "HEAD", "/metrics" | "/") => Asked::Page { with_body: method == "GET" },
            ("GET" | "HEAD", _) => Asked::Elsewhere,
            _ => Asked::Otherwise,
        }
    }
}

fn answer(status: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), if with_body { body.as_bytes() } else { &[] }].concat()
}

/// Everything up to the empty line; `None` if that is too much.
async fn read_head(stream: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => head.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n") {
            return Ok(Some(head));
        }
        if head.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Asked, REQUEST_BYTES_MAX, publish};
    use crate::network::ConnectError;
    use crate::real::run_role_here;
    use std::io::{Read, Write};
    use std::net::SocketAddr;
    use std::sync::Arc;
    use tokio::runtime::Handle;

    #[test]
    fn what_is_asked_is_told_apart() {
        let table: [(&str, Asked); 7] = [
            ("GET /metrics HTTP/1.1", Asked::Page { with_body: true }),
            ("HEAD /?x=1 HTTP/1.0", Asked::Page { with_body: false }),
            ("GET /secrets HTTP/1.1", Asked::Elsewhere),
            ("POST /metrics HTTP/1.1", Asked::Otherwise),
            ("GET /metrics", Asked::Nonsense),
            ("GET /metrics SMTP/1", Asked::Nonsense),
            ("", Asked::Nonsense),
        ];
        for (line, expected) in table {
            assert_eq!(Asked::of(format!("{line}\r\nHost: x\r\n\r\n").as_bytes()), expected, "{line}");
        }
    }

    fn scrape(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        // The other side may have heard enough before all is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn a_page_is_made_anew_for_each_who_asks_and_its_port_is_freed() {
        run_role_here("page", |runtime| async move {
            let asked = std::sync::atomic::AtomicU64::new(0);
            let page = Arc::new(move || format!("asked {}\n", asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed)));
            let any: SocketAddr = ([127, 0, 0, 1], 0).into();
            let published = publish(&Handle::current(), any, page.clone()).unwrap();
            let address = published.address;
            let get = move |request: &'static [u8]| scrape(address, request);
            for number in 0..2 {
                let answer = runtime.blocking(move || get(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
                assert!(answer.ends_with(&format!("\r\n\r\nasked {number}\n")), "{answer}");
            }
            let answer = runtime.blocking(move || get(b"GET /etc/passwd HTTP/1.1\n\n")).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            let endless = vec![b'x'; REQUEST_BYTES_MAX + 2048];
            let answer = runtime.blocking(move || scrape(address, &endless)).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");

            let Err(ConnectError::Local { reason, .. }) = publish(&Handle::current(), address, page.clone()) else {
                panic!("the port is in use")
            };
            assert!(reason.starts_with("the TCP port is in use"), "{reason}");
            drop(published);
            tokio::task::yield_now().await;
            assert!(publish(&Handle::current(), address, page).is_ok());
        })
        .unwrap();
    }
}
