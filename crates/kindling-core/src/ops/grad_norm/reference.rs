//! Plain f64 loops.

pub fn sum_of_squares(g: &[f64]) -> f64 {
    g.iter().map(|x| x * x).sum()
}
