//! Names and file shapes of the parameters, and their ranges in one flat buffer.
//!
//! Files store a matrix as `linear_matrix` [in, out]; memory holds its transpose (out, in). q, k, v
//! and w1, w3 are adjacent, so that each group is one matrix of stacked rows. Gains and biases are
//! stored as they are.

use std::ops::Range;

use crate::config::ModelConfig;
use crate::pattern::matches_pattern;

/// A named tensor of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name in files, as in the course that the model comes from.
    pub name: String,
    /// Shape in files.
    pub file_shape: Vec<usize>,
    /// Range in the flat buffers of weights, gradients and optimizer state.
    pub range: Range<usize>,
    /// Set if memory holds the transpose of the matrix in files.
    pub transposed: bool,
}

impl Parameter {
    /// Returns whether this is a matrix, rather than a gain or a bias.
    pub fn is_matrix(&self) -> bool {
        self.file_shape.len() == 2
    }

    /// Returns whether `pattern` names this parameter. `*` matches any characters; the pattern
    /// `matrices` matches every matrix.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        if pattern == "matrices" { self.is_matrix() } else { matches_pattern(pattern, &self.name) }
    }

    /// Returns whether this is a bias. Biases start at 0, gains at 1.
    pub fn is_bias(&self) -> bool {
        self.name.rsplit('.').next() == Some("bias")
    }
}

/// Ranges of one block's tensors in the flat buffers.
#[derive(Debug, Clone)]
pub struct BlockRanges {
    /// Gain of the norm before attention (c).
    pub norm_attn: Range<usize>,
    /// q, k, v, stacked ((nh + 2 nkv) hs, c).
    pub qkv: Range<usize>,
    /// Biases of q, k, v, which follow the matrices in memory ((nh + 2 nkv) hs).
    pub qkv_bias: Option<Range<usize>>,
    /// Gains of the norms of queries and keys over a head (2 hs).
    pub qk_norm: Option<Range<usize>>,
    /// Attention output (c, nh hs).
    pub o: Range<usize>,
    /// Gain of the norm before feed-forward (c).
    pub norm_ff: Range<usize>,
    /// w1, w3, stacked (2 f, c).
    pub w13: Range<usize>,
    /// (c, f).
    pub w2: Range<usize>,
}

/// Ranges of every tensor in the flat buffers.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Every named tensor, in memory order.
    pub parameters: Vec<Parameter>,
    /// Token embedding (v, c).
    pub embedding: Range<usize>,
    pub blocks: Vec<BlockRanges>,
    /// Gain of the last norm (c).
    pub final_norm: Range<usize>,
    /// Output layer (v, c): the embedding itself if they are tied.
    pub output: Range<usize>,
    /// Elements of a flat buffer.
    pub len: usize,
}

struct Builder {
    parameters: Vec<Parameter>,
    len: usize,
}

impl Builder {
    fn add(&mut self, name: String, file_shape: &[usize], transposed: bool) -> Range<usize> {
        let range = self.len..self.len + file_shape.iter().product::<usize>();
        self.len = range.end;
        self.parameters.push(Parameter {
            name,
            file_shape: file_shape.to_vec(),
            range: range.clone(),
            transposed,
        });
        range
    }

    /// Adds one matrix [inputs, outputs] per name, stacked in memory.
    fn matrices(&mut self, prefix: &str, inputs: usize, names: &[(&str, usize)]) -> Range<usize> {
        let start = self.len;
        for (name, outputs) in names {
            self.add(format!("{prefix}.{name}.linear_matrix"), &[inputs, *outputs], true);
        }
        start..self.len
    }
}

impl Layout {
    /// Lays out the parameters of a model.
    pub fn new(config: &ModelConfig) -> Self {
        let (c, f) = (config.d_model, config.d_ff);
        let (q, kv) =
            (config.num_heads * config.head_size(), config.num_kv_heads * config.head_size());
        let mut builder = Builder { parameters: Vec::new(), len: 0 };
        let table = "token_embedding.embedding_matrix".to_owned();
        let embedding = builder.add(table, &[config.vocab_size, c], false);
        let blocks = (0..config.num_layers)
            .map(|layer| {
                let block = format!("transformer_blocks.{layer}");
                let attention = format!("{block}.Multihead_Attn");
                let feed_forward = format!("{block}.Feed_Forward");
                let norm_attn = builder.add(format!("{block}.RMSNorm_Attn.g"), &[c], false);
                let qkv = builder.matrices(
                    &attention,
                    c,
                    &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
                );
                let qkv_bias = config.qkv_bias.then(|| {
                    let start = builder.len;
                    for (name, width) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
                        builder.add(format!("{attention}.{name}.bias"), &[width], false);
                    }
                    start..builder.len
                });
                let qk_norm = config.qk_norm.then(|| {
                    let start = builder.len;
                    for name in ["q_norm", "k_norm"] {
                        let size = config.head_size();
                        builder.add(format!("{attention}.{name}.g"), &[size], false);
                    }
                    start..builder.len
                });
                let o = builder.matrices(&attention, q, &[("o_proj", c)]);
                let norm_ff = builder.add(format!("{block}.RMSNorm_FF.g"), &[c], false);
                let w13 = builder.matrices(&feed_forward, c, &[("linear_w1", f), ("linear_w3", f)]);
                let w2 = builder.matrices(&feed_forward, f, &[("linear_w2", c)]);
                BlockRanges { norm_attn, qkv, qkv_bias, qk_norm, o, norm_ff, w13, w2 }
            })
            .collect();
        let final_norm = builder.add("final_norm.g".to_owned(), &[c], false);
        let output = if config.tie_embeddings {
            embedding.clone()
        } else {
            builder.add("final_layer.linear_matrix".to_owned(), &[c, config.vocab_size], true)
        };
        Self {
            parameters: builder.parameters,
            embedding,
            blocks,
            final_norm,
            output,
            len: builder.len,
        }
    }

    /// Returns the gain of the norm that follows block `layer`: the next block's, or the last one.
    pub(super) fn norm_after(&self, layer: usize) -> &Range<usize> {
        self.blocks.get(layer + 1).map_or(&self.final_norm, |next| &next.norm_attn)
    }
}
