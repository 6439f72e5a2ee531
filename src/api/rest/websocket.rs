//! MQTT over WebSocket, on the port of HTTPS: an MQTT connection's bytes in binary messages (OASIS MQTT 3.1.1, section 6).
//!
//! Devices take this way where a firewall lets nothing but HTTPS out. What is said on it, and to which of the service's
//! names, is as on MQTT's own port.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::Response;
use axum::response::IntoResponse;
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use crate::api::azure::fault::Refusal;
use crate::domain::limits;
use crate::service::Peer;

use super::Edge;
use super::answer::refused;

/// The subprotocol; some SDKs write it in capitals.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "MQTT"];
/// A packet of the largest size, with its header; packets may be cut into messages anywhere.
const MESSAGE_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX + 16;
/// What may wait to be sent: a few packets of the largest size. Whoever takes nothing for longer is hung up on.
const WAITING_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

/// Held for as long as something of a connection goes on: its place is free only afterwards.
#[derive(Debug, Clone)]
pub struct Alive {
    _place: mpsc::Sender<()>,
}

impl Alive {
    /// With the end that hears when all of them are gone.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (place, gone) = mpsc::channel(1);
        (Self { _place: place }, gone)
    }
}

/// `GET /$iothub/websocket`
pub async fn mqtt(
    State(edge): State<Edge>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(alive): Extension<Alive>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    let refuse = |message: &str| refused(&Refusal::new(400_004, message), edge.service.now());
    let Ok(upgrade) = upgrade else { return refuse("this address speaks WebSocket") };
    let upgrade = upgrade
        .protocols(SUBPROTOCOLS)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_write_buffer_size(WAITING_BYTES_MAX);
    if upgrade.selected_protocol().is_none() {
        return refuse("the WebSocket subprotocol must be mqtt");
    }
    let (endpoint, peer) = (edge.mqtt.clone(), Peer::clone(&peer));
    upgrade
        .on_upgrade(async move |socket| {
            endpoint.serve(Carried { socket, unread: Bytes::new() }, peer).await;
            drop(alive);
        })
        .into_response()
}

/// The bytes that a WebSocket carries.
struct Carried {
    socket: WebSocket,
    unread: Bytes,
}

impl AsyncRead for Carried {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                // Pings are answered below this.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a message of text")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(io::Error::other)
    }
}
