//! The guest's end of the gateway: where QEMU's frames come from and go to.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use smoltcp::phy::{Device as _, Medium, RxToken as _, TunTapInterface, TxToken as _};
use smoltcp::time::Instant;

use crate::tap;

/// What the wire is made of.
#[derive(Clone, Debug)]
pub enum WireConfig {
    /// Unix datagrams, one frame each.
    Unix {
        /// Our end; must not exist yet.
        host_path: PathBuf,
        /// QEMU's end; it appears when QEMU starts.
        guest_path: PathBuf,
    },
    /// A tap in a network namespace.
    Tap {
        /// The file that stands for the namespace.
        namespace: PathBuf,
    },
}

/// A wire that another thread may open.
pub(super) enum Prepared {
    Unix { socket: UnixDatagram, guest_path: PathBuf },
    Tap { namespace: PathBuf },
}

impl Prepared {
    /// Does what has to be done before QEMU starts.
    pub(super) fn new(config: WireConfig) -> io::Result<Self> {
        match config {
            WireConfig::Unix { host_path, guest_path } => {
                let socket = UnixDatagram::bind(&host_path)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Unix { socket, guest_path })
            }
            WireConfig::Tap { namespace } => Ok(Self::Tap { namespace }),
        }
    }

    /// The wire, for the calling thread, which may end up in another network namespace.
    pub(super) fn open(self) -> io::Result<Wire> {
        match self {
            Self::Unix { socket, guest_path } => {
                Ok(Wire::Unix { socket, guest_path, connected: false })
            }
            Self::Tap { namespace } => {
                tap::enter(&namespace)?;
                TunTapInterface::new(tap::HOST_END, Medium::Ethernet).map(Wire::Tap)
            }
        }
    }
}

/// An open wire. Nothing on it blocks.
pub(super) enum Wire {
    Unix { socket: UnixDatagram, guest_path: PathBuf, connected: bool },
    Tap(TunTapInterface),
}

/// What became of a frame for QEMU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is on its way.
    Yes,
    /// There is no room now.
    Full,
    /// Nobody is there: as a cable without an end.
    Nobody,
}

impl Wire {
    /// The next frame from QEMU into `buf`: its length.
    pub(super) fn receive(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Unix { socket, .. } => super::pump::ready(socket.recv(buf)),
            Self::Tap(tap) => Ok(tap.receive(Instant::ZERO).map(|(token, _)| {
                token.consume(|frame| {
                    let len = frame.len().min(buf.len());
                    buf[..len].copy_from_slice(&frame[..len]);
                    len
                })
            })),
        }
    }

    /// Hands a frame to QEMU.
    pub(super) fn send(&mut self, frame: &[u8]) -> Sent {
        match self {
            Self::Unix { socket, guest_path, connected } => {
                if !*connected && socket.connect(guest_path).is_err() {
                    return Sent::Full;
                }
                *connected = true;
                match socket.send(frame) {
                    Ok(_) => Sent::Yes,
                    Err(error) if is_full(&error) => Sent::Full,
                    Err(_) => {
                        *connected = false;
                        Sent::Nobody
                    }
                }
            }
            // What the kernel cannot take it drops, as a switch would.
            Self::Tap(tap) => match tap.transmit(Instant::ZERO) {
                Some(token) => {
                    token.consume(frame.len(), |buf| buf.copy_from_slice(frame));
                    Sent::Yes
                }
                None => Sent::Full,
            },
        }
    }

    /// Whether a frame could be waited for to go out.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Unix { connected, .. } => *connected,
            Self::Tap(_) => false,
        }
    }

    /// For `poll`.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { socket, .. } => socket.as_fd(),
            // SAFETY: the interface owns the descriptor and is borrowed for as long.
            Self::Tap(tap) => unsafe { BorrowedFd::borrow_raw(tap.as_raw_fd()) },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}
