//! Shapes, as errors say them: of one tensor, of several in one call, or the ranks of a new group.

/// What a list of tensors has in the place of a shape: this word, their number, and for each how many dimensions it
/// has, and its dimensions. No tensor has a dimension of this length.
///
/// ```
/// use isobit::SEVERAL_TENSORS;
/// // A matrix and a vector in one call.
/// let shape = [SEVERAL_TENSORS, 2, 2, 20, 10, 1, 10];
/// ```
pub const SEVERAL_TENSORS: u64 = u64::MAX;

/// What a new group has in the place of a shape: this word, and its ranks.
pub(super) const RANKS: u64 = u64::MAX - 1;

/// Two shapes, and of several tensors the first that differs, if that many elements, or those of all ranks, can have them.
pub(super) fn texts(shapes: &[Vec<u64>; 2], counts: [u64; 2], world_size: u32) -> Option<[String; 2]> {
    if let [[RANKS, ours @ ..], [RANKS, theirs @ ..]] = shapes.each_ref().map(Vec::as_slice) {
        return Some([ours, theirs].map(|ranks| format!("the group [{}]", super::sites::joined(ranks))));
    }
    let tensors = [parse(&shapes[0])?, parse(&shapes[1])?];
    let plausible = |(tensors, count): (&Tensors<'_>, u64)| tensors.may_have(count, world_size);
    if !tensors.iter().zip(counts).all(plausible) {
        return None;
    }
    let [ours, theirs] = &tensors;
    let most = ours.shapes.len().max(theirs.shapes.len());
    let first = (0..most).find(|&at| ours.shapes.get(at) != theirs.shapes.get(at)).unwrap_or(0);
    Some(tensors.each_ref().map(|tensors| tensors.text(first)))
}

struct Tensors<'a> {
    shapes: Vec<&'a [u64]>,
    are_several: bool,
}

fn parse(words: &[u64]) -> Option<Tensors<'_>> {
    let [SEVERAL_TENSORS, number, rest @ ..] = words else {
        return Some(Tensors { shapes: vec![words], are_several: false });
    };
    let (mut shapes, mut rest) = (Vec::new(), rest);
    while let Some((dimensions, behind)) = rest.split_first() {
        let (shape, behind) = behind.split_at_checked(usize::try_from(*dimensions).ok()?)?;
        shapes.push(shape);
        rest = behind;
    }
    (shapes.len() as u64 == *number).then_some(Tensors { shapes, are_several: true })
}

impl Tensors<'_> {
    fn may_have(&self, count: u64, world_size: u32) -> bool {
        let of = |shape: &&[u64]| shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length));
        let elements = self.shapes.iter().try_fold(0u64, |sum, shape| sum.checked_add(of(shape)?));
        match elements {
            None => false,
            Some(0) => count == 0,
            Some(elements) => count.saturating_mul(world_size.into()).is_multiple_of(elements),
        }
    }

    /// `(20, 10)`, as numpy writes it; of several their number, and one of them, if it is there.
    fn text(&self, one: usize) -> String {
        if !self.are_several {
            return shape_text(self.shapes[0]);
        }
        let number = match self.shapes.len() {
            1 => "a list of 1 tensor".to_owned(),
            several => format!("a list of {several} tensors"),
        };
        match self.shapes.get(one) {
            Some(shape) => format!("{number}, [{one}] of shape {}", shape_text(shape)),
            None => number,
        }
    }
}

fn shape_text(shape: &[u64]) -> String {
    match shape {
        [length] => format!("({length},)"),
        _ => format!("({})", super::sites::joined(shape)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: u64 = SEVERAL_TENSORS;

    fn said(ours: &[u64], theirs: &[u64], counts: [u64; 2]) -> Option<[String; 2]> {
        texts(&[ours.to_vec(), theirs.to_vec()], counts, 3)
    }

    #[test]
    fn of_several_tensors_the_first_that_differs_is_said() {
        let four = said(&[MORE, 3, 1, 2, 2, 2, 3, 0], &[MORE, 3, 1, 2, 2, 3, 2, 0], [9, 9]).unwrap();
        assert_eq!(
            four,
            ["a list of 3 tensors, [1] of shape (2, 3)", "a list of 3 tensors, [1] of shape (3, 2)"]
        );
        let fewer = said(&[MORE, 1, 1, 2], &[MORE, 2, 1, 2, 1, 5], [2, 7]).unwrap();
        assert_eq!(fewer, ["a list of 1 tensor", "a list of 2 tensors, [1] of shape (5,)"]);
        let one = said(&[4], &[MORE, 2, 1, 2, 1, 2], [4, 4]).unwrap();
        assert_eq!(one, ["(4,)", "a list of 2 tensors, [0] of shape (2,)"]);
        assert_eq!(said(&[2, 3], &[3, 2], [6, 6]).unwrap(), ["(2, 3)", "(3, 2)"]);
        assert_eq!(said(&[2, 3], &[2, 3], [6, 6]).unwrap(), ["(2, 3)", "(2, 3)"]);
    }

    #[test]
    fn what_can_be_no_shape_of_that_many_elements_is_not_said() {
        assert_eq!(said(&[4], &[5], [4, 6]), None);
        assert_eq!(
            said(&[RANKS, 0, 2], &[RANKS, 1], [17, 17]).unwrap(),
            ["the group [0, 2]", "the group [1]"]
        );
        assert_eq!(said(&[RANKS, 0, 2], &[17], [17, 17]), None);
        assert_eq!(said(&[u64::MAX / 2, 4], &[5], [4, 5]), None);
        for hostile in
            [&[MORE, 2, 1, 4][..], &[MORE, 1, 2, 4], &[MORE], &[MORE, 1, MORE], &[MORE, 1, 1, 4, 0, 0]]
        {
            assert_eq!(said(&[5], hostile, [5, 4]), None, "{hostile:?}");
        }
    }
}
