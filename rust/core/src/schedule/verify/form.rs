//! What can be said of each step by itself: that its buffers exist and have room, and what it waits for.

use super::{VerifyError, reads, writes};
use crate::Rank;
use crate::schedule::{Action, Buf, Content, Layout, Limits, Program, Region, Schedule, StepIndex};

pub(super) fn check(layout: &Layout<'_>, limits: &Limits, schedule: &Schedule) -> Result<(), VerifyError> {
    let (found, expected) = (schedule.programs.len(), layout.world_size());
    if found != expected as usize {
        return Err(VerifyError::Programs { found, expected });
    }
    for (rank, program) in (0..).zip(&schedule.programs) {
        let (bytes, bytes_max) = (program.slot_bytes.iter().sum(), limits.window_bytes);
        if bytes > bytes_max {
            return Err(VerifyError::Staging { rank, bytes, bytes_max });
        }
        let mut form = Form { layout, rank, program, view_len: vec![None; program.views as usize] };
        for (index, step) in (0..).zip(&program.steps) {
            let malformed = |what| VerifyError::Malformed { rank, step: index, what };
            if step.after.iter().any(|earlier| *earlier >= index) {
                return Err(malformed("it waits for itself or a later step"));
            }
            form.step(&step.action).map_err(malformed)?;
            if let Action::Send { src, content, .. } = step.action {
                let bytes = src.len * layout.bytes(content);
                too_large(rank, index, bytes, limits.chunk_bytes)?;
            }
        }
    }
    Ok(())
}

fn too_large(rank: Rank, step: StepIndex, bytes: u64, bytes_max: u64) -> Result<(), VerifyError> {
    if bytes > bytes_max {
        return Err(VerifyError::MessageTooLarge { rank, step, bytes, bytes_max });
    }
    Ok(())
}

struct Form<'a> {
    layout: &'a Layout<'a>,
    rank: Rank,
    program: &'a Program,
    /// The length of each view received so far.
    view_len: Vec<Option<u64>>,
}

impl Form<'_> {
    fn step(&mut self, action: &Action) -> Result<(), &'static str> {
        if let Action::Send { to: peer, .. } | Action::Recv { from: peer, .. } = *action
            && (peer == self.rank || peer >= self.layout.world_size())
        {
            return Err("there is no such peer");
        }
        if let Action::Recv { dst: Region { buf: Buf::View(view), start, len }, .. } = *action {
            let known = self.view_len.get_mut(view as usize).ok_or("there is no such view")?;
            if known.is_some() || start != 0 {
                return Err("a view is received once and whole");
            }
            *known = Some(len);
        }
        for (region, content) in reads(action) {
            self.fits(region, content)?;
        }
        let Some((out, content)) = writes(action) else {
            return Ok(());
        };
        self.fits(out, content)?;
        match (out.buf, action) {
            _ if out.len == 0 => {}
            (Buf::Part(_), _) => return Err("a part is never written"),
            (Buf::View(_), Action::Reduce { .. } | Action::Copy { .. }) => {
                return Err("a view is only received");
            }
            _ => {}
        }
        for (region, _) in reads(action) {
            if region.len != out.len {
                return Err("source and destination differ in length");
            }
            if self.overlap_askew(region, out) {
                return Err("source and destination overlap and are not the same");
            }
        }
        match action {
            Action::Reduce { inputs, .. } if inputs.is_empty() => Err("a reduction of nothing"),
            Action::Reduce { target: Content::Data | Content::Leaf(_), .. } => {
                Err("a reduction makes a node, a wide sum or a result")
            }
            _ => Ok(()),
        }
    }

    fn fits(&self, region: Region, content: Content) -> Result<(), &'static str> {
        let Region { buf, start, len } = region;
        if len == 0 {
            return Ok(());
        }
        let end = start.checked_add(len).ok_or("a region ends beyond all memory")?;
        let room = match buf {
            Buf::Part(part) if (part as usize) < self.layout.parts(self.rank).len() => {
                self.layout.part_len(self.rank)
            }
            Buf::Part(_) => return Err("there is no such part"),
            Buf::Out => self.layout.out_len(self.rank),
            Buf::View(view) => match self.view_len.get(view as usize) {
                Some(Some(len)) => *len,
                _ => return Err("a view is read that no earlier step receives"),
            },
            Buf::Slot(slot) => {
                let bytes = self.program.slot_bytes.get(slot as usize).ok_or("there is no such slot")?;
                bytes / self.layout.bytes(content)
            }
        };
        if end > room { Err("a region ends beyond its buffer") } else { Ok(()) }
    }

    /// A source may be the destination itself, element for element, or must be elsewhere.
    fn overlap_askew(&self, src: Region, dst: Region) -> bool {
        let place = |region: Region| match region.buf {
            Buf::Slot(slot) => Some((1 + u64::from(slot), region.start)),
            _ => self.layout.shared_place(self.rank, region).map(|at| (0, at)),
        };
        match (place(src), place(dst)) {
            (Some((a, src_at)), Some((b, dst_at))) if a == b => {
                src_at != dst_at && src_at < dst_at + dst.len && dst_at < src_at + src.len
            }
            _ => false,
        }
    }
}
