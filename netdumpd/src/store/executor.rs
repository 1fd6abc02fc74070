//! Carries out the core's actions that concern files.

use bytes::Bytes;
use debugnet_core::time::Instant;

use super::Store;
use crate::core::{Action, Core, DumpFile, Fault, SessionId};

/// Payloads gathered into one write.
const MAX_GATHERED: usize = 64;

/// Takes actions from a [`Core`], carries out those for a [`Store`], reports
/// the results back, and hands the others on.
///
/// Payloads that lie one behind the other become one write.
#[derive(Debug, Default)]
pub struct Executor {
    gathered: Option<Gathered>,
    held: Option<Action>,
}

#[derive(Debug)]
struct Gathered {
    session: SessionId,
    file: DumpFile,
    offset: u64,
    end: u64,
    payloads: Vec<Bytes>,
    seqnos: Vec<u32>,
}

impl Executor {
    /// Works until there is something for the caller, or nothing to do.
    ///
    /// The caller carries out `Bind`, `Reply`, `Handle`, `Release` and
    /// `Notice`. `Open`, `Finish` and `Close` are already done when they are
    /// returned, for information; one that failed is not returned (the core
    /// has been told, and what follows from it comes next).
    pub fn next<S: Store + ?Sized>(
        &mut self,
        core: &mut Core,
        store: &mut S,
        now: Instant,
    ) -> Option<Action> {
        // Every turn takes an action from the core or a gathered write away.
        loop {
            let Some(action) = self.held.take().or_else(|| core.poll_action()) else {
                if self.flush(core, store, now) {
                    continue;
                }
                return None;
            };
            match action {
                Action::Write { session, seqno, file, offset, payload } => {
                    if !self.append(session, seqno, file, offset, &payload) {
                        self.flush(core, store, now);
                        self.gathered = Some(Gathered {
                            session,
                            file,
                            offset,
                            end: offset.saturating_add(payload.len() as u64),
                            payloads: vec![payload],
                            seqnos: vec![seqno],
                        });
                    }
                }
                other if self.gathered.is_some() => {
                    self.flush(core, store, now);
                    self.held = Some(other);
                }
                other => {
                    if let Some(action) = perform(other, core, store, now) {
                        return Some(action);
                    }
                }
            }
        }
    }

    fn append(
        &mut self,
        session: SessionId,
        seqno: u32,
        file: DumpFile,
        offset: u64,
        payload: &Bytes,
    ) -> bool {
        let Some(gathered) = &mut self.gathered else { return false };
        let fits = (gathered.session, gathered.file, gathered.end) == (session, file, offset)
            && gathered.payloads.len() < MAX_GATHERED;
        if fits {
            gathered.end = gathered.end.saturating_add(payload.len() as u64);
            gathered.payloads.push(payload.clone());
            gathered.seqnos.push(seqno);
        }
        fits
    }

    fn flush<S: Store + ?Sized>(&mut self, core: &mut Core, store: &mut S, now: Instant) -> bool {
        let Some(gathered) = self.gathered.take() else { return false };
        let Gathered { session, file, offset, payloads, seqnos, .. } = gathered;
        let result = store.write(session, file, offset, &payloads, &seqnos);
        for seqno in seqnos {
            core.written(now, session, seqno, result.clone());
        }
        true
    }
}

fn perform<S: Store + ?Sized>(
    action: Action,
    core: &mut Core,
    store: &mut S,
    now: Instant,
) -> Option<Action> {
    match &action {
        Action::Open { session, peer, path, herald } => {
            let result = store.open(*session, *peer, path, herald);
            let is_done = result.is_ok();
            core.opened(now, *session, result);
            is_done.then_some(action)
        }
        Action::RecordHeader { session, seqno, header } => {
            let result: Result<(), Fault> =
                store.record_header(*session, *seqno, header.as_deref());
            core.header_recorded(now, *session, *seqno, result);
            None
        }
        Action::Finish { session, record } => {
            let result = store.finish(*session, record);
            let is_done = result.is_ok();
            core.finished(now, *session, result);
            is_done.then_some(action)
        }
        Action::Close { session, record } => {
            store.close(*session, record);
            Some(action)
        }
        Action::Digest { session } => {
            store.digest(*session);
            None
        }
        _ => Some(action),
    }
}
