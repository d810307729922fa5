//! Plain loops in f64.

/// Sum of the squares of g.
pub fn sum_of_squares(g: &[f64]) -> f64 {
    g.iter().map(|x| x * x).sum()
}
