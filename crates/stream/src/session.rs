//! A remote command's five channels, whatever carries them.
//!
//! A session is symmetric: packets come in, packets go out. Gluing two sessions together makes a
//! gateway. Ending a channel is a packet too, so that half-closed input reaches the far end.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::spdy::{Connection, Headers, Stream, StreamWriter};
use crate::{Io, StreamError};

/// Packets that wait between a session and its transport.
pub(crate) const BUFFER: usize = 64;
/// How long a client may take to open the streams it asked for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The subprotocols of remote commands over SPDY, best first. The later of them differ from the
/// earlier in what the error channel says; the fourth says it as a JSON status.
pub const SPDY_PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];

/// A channel of a remote command. The numbers are those of the WebSocket subprotocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Input of the command.
    Stdin = 0,
    /// Its output.
    Stdout = 1,
    /// Its error output; none with a terminal.
    Stderr = 2,
    /// How it ended: a JSON `Status`.
    Error = 3,
    /// Sizes of the terminal: JSON with `Width` and `Height`.
    Resize = 4,
}

/// All channels, by number.
pub(crate) const CHANNELS: [Channel; 5] =
    [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Error, Channel::Resize];

impl Channel {
    /// The name that SPDY streams carry in their `streamType` header.
    const fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Error => "error",
            Self::Resize => "resize",
        }
    }

    fn named(name: &str) -> Option<Self> {
        CHANNELS.into_iter().find(|channel| channel.name() == name)
    }

    /// Whether the client of a command sends on it.
    pub(crate) const fn is_input(self) -> bool {
        matches!(self, Self::Stdin | Self::Resize)
    }
}

/// The channels that a command is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Input.
    pub stdin: bool,
    /// Output.
    pub stdout: bool,
    /// Error output; ignored with `tty`.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Wanted {
    /// The channels in the order in which clients open them.
    fn channels(self) -> impl Iterator<Item = Channel> {
        let wanted = [
            (Channel::Error, true),
            (Channel::Stdin, self.stdin),
            (Channel::Stdout, self.stdout),
            (Channel::Stderr, self.stderr && !self.tty),
            (Channel::Resize, self.tty),
        ];
        wanted.into_iter().filter_map(|(channel, wanted)| wanted.then_some(channel))
    }
}

/// Bytes on a channel, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which channel.
    pub channel: Channel,
    /// The bytes; `None` ends the channel.
    pub data: Option<Bytes>,
}

/// Both directions of a remote command. Dropping `outgoing` closes the connection when everything
/// has been sent; `incoming` ends when the peer has gone.
pub struct Session {
    /// What the peer sends.
    pub incoming: mpsc::Receiver<Packet>,
    /// What the peer gets.
    pub outgoing: mpsc::Sender<Packet>,
}

impl Session {
    /// The server's side over SPDY: waits until the client has opened the wanted streams.
    ///
    /// # Errors
    /// When it does not open them in time, or the connection breaks.
    pub async fn serve_spdy(io: impl Io, wanted: Wanted) -> Result<Self, StreamError> {
        let mut connection = Connection::server(io)?;
        let mut missing: Vec<Channel> = wanted.channels().collect();
        let mut streams = Vec::new();
        let open = async {
            while !missing.is_empty() {
                let stream = connection.accept().await.ok_or(StreamError::Closed)?;
                let channel = stream.headers.get("streamType").and_then(Channel::named);
                let channel = channel.ok_or(StreamError::Protocol("stream of an unknown type"))?;
                missing.retain(|expected| *expected != channel);
                streams.push((channel, stream));
            }
            Ok::<_, StreamError>(())
        };
        tokio::time::timeout(OPEN_TIMEOUT, open)
            .await
            .map_err(|_| StreamError::Protocol("streams were not opened in time"))??;
        Ok(Self::over(connection, streams, Channel::is_input))
    }

    /// The client's side over SPDY: opens the wanted streams.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn connect_spdy(io: impl Io, wanted: Wanted) -> Result<Self, StreamError> {
        let connection = Connection::client(io)?;
        let opener = connection.opener();
        let mut streams = Vec::new();
        for channel in wanted.channels() {
            streams.push((
                channel,
                opener.open(Headers::new([("streamType", channel.name())])).await?,
            ));
        }
        Ok(Self::over(connection, streams, |channel| !channel.is_input()))
    }

    fn over(
        connection: Connection,
        streams: Vec<(Channel, Stream)>,
        incoming: fn(Channel) -> bool,
    ) -> Self {
        let (to_session, from_peer) = mpsc::channel(BUFFER);
        let (to_peer, from_session) = mpsc::channel(BUFFER);
        let mut writers = HashMap::new();
        for (channel, stream) in streams {
            let (mut reader, writer) = stream.split();
            writers.insert(channel, writer);
            if !incoming(channel) {
                continue;
            }
            let packets = to_session.clone();
            tokio::spawn(async move {
                while let Some(data) = reader.read().await {
                    if packets.send(Packet { channel, data: Some(data) }).await.is_err() {
                        return;
                    }
                }
                let _ = packets.send(Packet { channel, data: None }).await;
            });
        }
        tokio::spawn(write(connection, writers, from_session));
        Self { incoming: from_peer, outgoing: to_peer }
    }

    /// Passes packets between two sessions until `back` ends, as a gateway between a client (`front`)
    /// and what runs the command (`back`).
    pub async fn splice(front: Self, back: Self) {
        let (mut from_client, to_client) = (front.incoming, front.outgoing);
        let (mut from_command, to_command) = (back.incoming, back.outgoing);
        let forward = async move {
            while let Some(packet) = from_client.recv().await {
                if to_command.send(packet).await.is_err() {
                    break;
                }
            }
            // The client's end alone does not end a command whose output somebody may still read.
            to_command
        };
        let backward = async move {
            while let Some(packet) = from_command.recv().await {
                if to_client.send(packet).await.is_err() {
                    break;
                }
            }
        };
        tokio::pin!(forward, backward);
        tokio::select! {
            () = &mut backward => {}
            to_command = &mut forward => {
                backward.await;
                drop(to_command);
            }
        }
    }
}

async fn write(
    mut connection: Connection,
    writers: HashMap<Channel, StreamWriter>,
    mut packets: mpsc::Receiver<Packet>,
) {
    loop {
        let packet = tokio::select! {
            packet = packets.recv() => packet,
            // Nobody opens further streams; this ends when the connection does.
            stream = connection.accept() => match stream {
                Some(_) => continue,
                None => return,
            },
        };
        let Some(packet) = packet else { break };
        let Some(writer) = writers.get(&packet.channel) else { continue };
        let sent = match packet.data {
            Some(data) => writer.write(data).await,
            None => writer.finish().await,
        };
        if sent.is_err() {
            return;
        }
    }
    for writer in writers.values() {
        let _ = writer.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// client session -> gateway -> echoing server session, all over SPDY.
    #[tokio::test]
    async fn a_gateway_carries_half_closed_input_and_the_status() {
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        let (client_end, gateway_front) = tokio::io::duplex(4096);
        let (gateway_back, server_end) = tokio::io::duplex(4096);
        let gateway = tokio::spawn(async move {
            let front = Session::serve_spdy(gateway_front, wanted).await.unwrap();
            let back = Session::connect_spdy(gateway_back, wanted).await.unwrap();
            Session::splice(front, back).await;
        });
        let server = tokio::spawn(async move {
            let mut session = Session::serve_spdy(server_end, wanted).await.unwrap();
            while let Some(packet) = session.incoming.recv().await {
                let Some(data) = packet.data else { break };
                session
                    .outgoing
                    .send(Packet { channel: Channel::Stdout, data: Some(data) })
                    .await
                    .unwrap();
            }
            let status = Some(Bytes::from_static(b"{}"));
            session.outgoing.send(Packet { channel: Channel::Error, data: status }).await.unwrap();
        });
        let mut client = Session::connect_spdy(client_end, wanted).await.unwrap();
        let input = Packet { channel: Channel::Stdin, data: Some(Bytes::from_static(b"hello")) };
        client.outgoing.send(input).await.unwrap();
        client.outgoing.send(Packet { channel: Channel::Stdin, data: None }).await.unwrap();
        let (mut output, mut status) = (Vec::new(), Vec::new());
        while let Some(packet) = client.incoming.recv().await {
            match (packet.channel, packet.data) {
                (Channel::Stdout, Some(data)) => output.extend_from_slice(&data),
                (Channel::Error, Some(data)) => status.extend_from_slice(&data),
                _ => {}
            }
        }
        assert_eq!((output.as_slice(), status.as_slice()), (&b"hello"[..], &b"{}"[..]));
        server.await.unwrap();
        gateway.await.unwrap();
    }
}
