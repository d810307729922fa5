//! The unigram entropy of a text: the loss of a model that knows only the frequency of each token.

/// Returns the entropy in nats of the distribution given by `counts`, or 0 if there are no counts.
pub fn token_entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    let mut entropy = 0.0;
    for &count in counts.iter().filter(|&&count| count > 0) {
        let p = count as f64 / total;
        entropy -= p * p.ln();
    }
    entropy
}

#[cfg(test)]
mod tests {
    use super::token_entropy;

    #[test]
    fn n_equal_counts_have_an_entropy_of_ln_n() {
        assert!((token_entropy(&[7; 50]) - 50f64.ln()).abs() < 1e-12);
        assert!((token_entropy(&[3, 1, 0]) - (4f64.ln() - 0.75 * 3f64.ln())).abs() < 1e-12);
        assert!(token_entropy(&[0, 9]).abs() < 1e-12);
        assert!(token_entropy(&[]).abs() < 1e-12);
    }
}
