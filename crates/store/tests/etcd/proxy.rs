//! A way to a member of etcd that can be cut and stopped, for tests of what
//! happens when answers are lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

/// Copies bytes both ways until told otherwise.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cut: broadcast::Sender<()>,
    closed: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        let _ = self.cut.send(());
    }
}

impl Proxy {
    /// Listens on a port of the member's own address, for which its certificate holds.
    pub(crate) async fn start(target: &str) -> Self {
        let target: SocketAddr = target.parse().unwrap();
        let listener = TcpListener::bind((target.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, _) = broadcast::channel(1);
        let closed = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(accept(listener, target, cut.clone(), Arc::clone(&closed)));
        Self { address, cut, closed, task }
    }

    /// Ends all connections, whatever is under way on them.
    pub(crate) fn cut(&self) {
        let _ = self.cut.send(());
    }

    /// Takes no connections any more, or again.
    pub(crate) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    cut: broadcast::Sender<()>,
    closed: Arc<AtomicBool>,
) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut end = cut.subscribe();
        if closed.load(Ordering::SeqCst) {
            continue;
        }
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = end.recv() => {}
            }
        });
    }
}
