#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::arithmetic_side_effects
    )
)]

mod arena;

use core::marker::PhantomData;
use core::ptr::NonNull;

use arena::Arena;
use debugnet_core::dump::{ImageStream, Transform, TransformError};
use debugnet_core::wire::kdh::COMPRESSION_GZIP;
use libz_rs_sys::{
    Z_BUF_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH, Z_NO_FLUSH, Z_OK, Z_STREAM_END, deflate,
    deflateInit2_, deflateReset, z_stream, zlibVersion,
};

/// Bytes of the image compressed at a time.
const INPUT_LEN: usize = 4096;

/// How far back repetitions are found, which decides how much memory it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// 4 KiB.
    Small,
    /// 32 KiB, the most that gzip has.
    Large,
}

impl Window {
    const fn bits(self) -> i32 {
        match self {
            Self::Small => 12,
            Self::Large => 15,
        }
    }

    /// Bytes of the workspace that [`Gzip::new`] wants, whatever its alignment.
    pub const fn workspace_len(self) -> usize {
        match self {
            Self::Small => 168 * 1024,
            Self::Large => 280 * 1024,
        }
    }
}

/// Why there is no compressor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum GzipError {
    /// The workspace is too small.
    Workspace {
        /// Its length in bytes.
        found: usize,
        /// What [`Window::workspace_len`] says.
        need: usize,
    },
    /// A level that is none.
    Level {
        /// The level.
        found: u8,
    },
}

impl core::fmt::Display for GzipError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Workspace { found, need } => {
                write!(f, "workspace of {found} bytes, expected {need}")
            }
            Self::Level { found } => write!(f, "level {found}, expected 1 to 9"),
        }
    }
}

impl core::error::Error for GzipError {}

/// What lies at the start of the workspace, and stays there: the library keeps pointers to it.
struct Head {
    stream: z_stream,
    arena: Arena,
    input: [u8; INPUT_LEN],
}

/// The compressor: a [`Transform`] whose output is one gzip file.
///
/// All of its memory is the workspace, from boot on.
pub struct Gzip<'m> {
    /// In the workspace, aligned and initialised, and named by nobody else.
    head: NonNull<Head>,
    used_len: usize,
    /// All of the image has been given to the library.
    is_drained: bool,
    /// The library has put out its last byte.
    is_over: bool,
    /// The library would not start anew.
    is_broken: bool,
    workspace: PhantomData<&'m mut [u8]>,
}

// SAFETY: `head` points into the workspace, which is borrowed exclusively for 'm and so goes
// wherever this does; nothing in it belongs to a thread.
unsafe impl Send for Gzip<'_> {}

impl<'m> Gzip<'m> {
    /// A compressor in this memory, of which it touches all that it will ever use:
    /// at boot, while a fault is an ordinary one. Level 1 is the fastest; 9 takes longest.
    ///
    /// # Errors
    /// [`GzipError`], with what was found and what was expected.
    pub fn new(workspace: &'m mut [u8], window: Window, level: u8) -> Result<Self, GzipError> {
        /// Memory for the hash table: half of what it is by default, at the same ratio on RAM.
        const MEMORY_LEVEL: i32 = 5;
        /// Added to the window's bits, it asks for gzip's header and trailer.
        const GZIP: i32 = 16;
        let (found, need) = (workspace.len(), window.workspace_len());
        let too_small = GzipError::Workspace { found, need };
        if found < need {
            return Err(too_small);
        }
        if !(1..=9).contains(&level) {
            return Err(GzipError::Level { found: level });
        }
        let mut all = Arena::new(workspace);
        let place = all.take(size_of::<Head>(), align_of::<Head>()).ok_or(too_small)?;
        let head = place.cast::<Head>();
        // SAFETY: `take` gave memory of this size and alignment inside the workspace, which is
        // ours for 'm, and gives none of it twice.
        unsafe {
            head.write(Head { stream: z_stream::default(), arena: all, input: [0; INPUT_LEN] })
        };
        let stream = {
            // SAFETY: initialised by the line above, and no other reference to it lives yet.
            let head = unsafe { &mut *head.as_ptr() };
            head.stream.zalloc = Some(arena::allocate);
            head.stream.zfree = Some(arena::free);
            head.stream.opaque = (&raw mut head.arena).cast();
            &raw mut head.stream
        };
        // SAFETY: the stream is initialised, its allocator is the arena beside it, and it
        // does not move until the workspace is the caller's again.
        let code = unsafe {
            deflateInit2_(
                stream,
                level.into(),
                Z_DEFLATED,
                window.bits() | GZIP,
                MEMORY_LEVEL,
                Z_DEFAULT_STRATEGY,
                zlibVersion(),
                size_of::<z_stream>() as i32,
            )
        };
        if code != Z_OK {
            return Err(too_small);
        }
        // SAFETY: still the only way to it, between two calls of the library.
        let used_len = unsafe { head.as_ref() }.arena.used_len();
        Ok(Self {
            head,
            used_len,
            is_drained: false,
            is_over: false,
            is_broken: false,
            workspace: PhantomData,
        })
    }

    /// Bytes of the workspace that are in use, from the first call on and for ever.
    pub fn used_len(&self) -> usize {
        self.used_len
    }

    /// One call of the library: input that is at hand into `out`. Returns its code and how
    /// many bytes it put out.
    fn step(&mut self, out: &mut [u8]) -> (i32, usize) {
        let flush = if self.is_drained { Z_FINISH } else { Z_NO_FLUSH };
        let room = u32::try_from(out.len()).unwrap_or(u32::MAX);
        // SAFETY: `new` initialised it, and `&mut self` is the only way to it; the library is
        // not running.
        let stream = unsafe { &raw mut (*self.head.as_ptr()).stream };
        // SAFETY: `out` is borrowed until this function returns, the library writes at most
        // `room` bytes there, and is told of other memory before it is called again.
        unsafe { (*stream).next_out = out.as_mut_ptr() };
        // SAFETY: as the line above.
        unsafe { (*stream).avail_out = room };
        // SAFETY: an initialised stream; `next_in` and `avail_in` name the rest of the input
        // buffer beside it, which `refill` alone writes, and only when there is no rest.
        let code = unsafe { deflate(stream, flush) };
        // SAFETY: the library has returned.
        let left = unsafe { (*stream).avail_out };
        (code, room.saturating_sub(left) as usize)
    }

    /// More input, if all of it is used up.
    fn refill(&mut self, image: &mut ImageStream<'_>) {
        // SAFETY: as in `step`. The rest of the input, if there is one, is not borrowed:
        // the stream still points there.
        let left = unsafe { (*self.head.as_ptr()).stream.avail_in };
        if self.is_drained || left != 0 {
            return;
        }
        // SAFETY: exclusive, and no input is left that the stream points to.
        let head = unsafe { &mut *self.head.as_ptr() };
        let len = image.read(&mut head.input);
        self.is_drained = len == 0;
        head.stream.next_in = head.input.as_mut_ptr();
        head.stream.avail_in = len as u32;
    }
}

impl Transform for Gzip<'_> {
    fn restart(&mut self) {
        self.is_drained = false;
        // SAFETY: an initialised stream that nobody else names.
        let stream = unsafe { &raw mut (*self.head.as_ptr()).stream };
        // SAFETY: the same; the library is not running.
        unsafe { (*stream).avail_in = 0 };
        // SAFETY: the same. Nothing is allocated.
        let code = unsafe { deflateReset(stream) };
        self.is_over = false;
        self.is_broken = code != Z_OK;
    }

    fn next(
        &mut self,
        image: &mut ImageStream<'_>,
        cell: &mut [u8],
    ) -> Result<usize, TransformError> {
        if self.is_broken {
            return Err(TransformError("deflate cannot be reset"));
        }
        let mut done = 0usize;
        // Each turn uses up input or fills the cell, or is the last.
        while !self.is_over {
            let Some(room @ [_, ..]) = cell.get_mut(done..) else { break };
            self.refill(image);
            let (code, len) = self.step(room);
            done = done.saturating_add(len);
            match code {
                Z_STREAM_END => self.is_over = true,
                Z_OK => {}
                // No progress: only possible if there was neither input nor room.
                Z_BUF_ERROR if !self.is_drained => {}
                _ => return Err(TransformError("deflate failed")),
            }
        }
        Ok(done)
    }

    fn compression(&self) -> u8 {
        COMPRESSION_GZIP
    }
}
