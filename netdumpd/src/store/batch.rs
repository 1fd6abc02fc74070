//! Carries out actions that concern files, payloads that lie one behind the
//! other as one write.

use std::collections::VecDeque;

use debugnet_core::time::Instant;

use super::{Piece, Store};
use crate::core::{Action, Core, DumpFile, Fault, SessionId};

/// Pieces gathered into one write.
const MAX_GATHERED: usize = 256;

/// What came of one or several actions, to be told to the core in this order.
#[derive(Debug)]
pub(crate) enum Done {
    /// [`Action::Open`].
    Opened(Action, Result<(), Fault>),
    /// Several [`Action::Write`], by their first numbers.
    Written { session: SessionId, seqnos: Vec<u32>, result: Result<(), Fault> },
    /// [`Action::RecordHeader`].
    HeaderRecorded { session: SessionId, seqno: u32, result: Result<(), Fault> },
    /// [`Action::Finish`].
    Finished(Action, Result<(), Fault>),
    /// Done, or not for files: there is nothing to tell the core.
    Other(Action),
}

impl Done {
    /// Tells the core. Returns the action if there is something in it for the caller.
    pub(crate) fn tell(self, core: &mut Core, now: Instant) -> Option<Action> {
        match self {
            Self::Opened(action, result) => {
                let is_done = result.is_ok();
                if let Action::Open { session, .. } = &action {
                    core.opened(now, *session, result);
                }
                is_done.then_some(action)
            }
            Self::Written { session, seqnos, result } => {
                core.written_together(now, session, &seqnos, result);
                None
            }
            Self::HeaderRecorded { session, seqno, result } => {
                core.header_recorded(now, session, seqno, result);
                None
            }
            Self::Finished(action, result) => {
                let is_done = result.is_ok();
                if let Action::Finish { session, .. } = &action {
                    core.finished(now, *session, result);
                }
                is_done.then_some(action)
            }
            Self::Other(action) => Some(action),
        }
    }
}

/// Carries out all `actions` in their order; what came of them is put behind `done`.
pub(crate) fn carry_out<S: Store + ?Sized>(
    store: &mut S,
    actions: &mut VecDeque<Action>,
    done: &mut Vec<Done>,
) {
    let mut gathered: Option<Gathered> = None;
    for action in actions.drain(..) {
        match action {
            Action::Write { session, seqno, count, file, offset, payload } => {
                let piece = Piece { seqno, count, payload };
                let next = Gathered::new(session, file, offset, piece);
                match &mut gathered {
                    Some(before) if before.is_followed_by(&next) => before.join(next),
                    _ => done.extend(gathered.replace(next).map(|before| before.write(store))),
                }
            }
            other => {
                done.extend(gathered.take().map(|before| before.write(store)));
                done.push(perform(other, store));
            }
        }
    }
    done.extend(gathered.map(|last| last.write(store)));
}

struct Gathered {
    session: SessionId,
    file: DumpFile,
    offset: u64,
    end: u64,
    pieces: Vec<Piece>,
}

impl Gathered {
    fn new(session: SessionId, file: DumpFile, offset: u64, piece: Piece) -> Self {
        let end = offset.saturating_add(piece.payload.len() as u64);
        Self { session, file, offset, end, pieces: vec![piece] }
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        (self.session, self.file, self.end) == (next.session, next.file, next.offset)
            && self.pieces.len() < MAX_GATHERED
    }

    fn join(&mut self, next: Self) {
        self.end = next.end;
        self.pieces.extend(next.pieces);
    }

    fn write<S: Store + ?Sized>(self, store: &mut S) -> Done {
        let Self { session, file, offset, pieces, .. } = self;
        let result = store.write(session, file, offset, &pieces);
        let seqnos = pieces.iter().map(|piece| piece.seqno).collect();
        Done::Written { session, seqnos, result }
    }
}

fn perform<S: Store + ?Sized>(action: Action, store: &mut S) -> Done {
    match &action {
        Action::Open { session, peer, path, herald } => {
            let result = store.open(*session, *peer, path, herald);
            Done::Opened(action, result)
        }
        Action::RecordHeader { session, seqno, header } => {
            let result = store.record_header(*session, *seqno, header.as_deref());
            Done::HeaderRecorded { session: *session, seqno: *seqno, result }
        }
        Action::Finish { session, record } => {
            let result = store.finish(*session, record);
            Done::Finished(action, result)
        }
        Action::Close { session, record } => {
            store.close(*session, record);
            Done::Other(action)
        }
        Action::Digest { session } => {
            store.digest(*session);
            Done::Other(action)
        }
        _ => Done::Other(action),
    }
}
