//! The UDP socket of an endpoint.

use crate::real::network::settings::SOCKET_BUFFER_BYTES;
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;

/// Binds a port with buffers large enough for bursts. An address that is all zeros listens on every interface.
#[expect(clippy::disallowed_types, reason = "this is what Runtime::network stands on")]
pub fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    // FORCE needs CAP_NET_ADMIN; without it the kernel silently caps the size at net.core.[rw]mem_max.
    if sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, SOCKET_BUFFER_BYTES).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
    }
    // The kernel counts its own overhead in and reports twice what was asked for.
    let received = sockopt::socket_recv_buffer_size(&socket)?;
    if received < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            bytes = received,
            wanted = SOCKET_BUFFER_BYTES,
            "the UDP receive buffer is small, so busy connections will lose packets: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(socket)
}
