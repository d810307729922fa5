/**
 * The layers of a block between its matrix products: RMSNorm, rotary position embedding, attention,
 * SiLU and SwiGLU.
 *
 * n rows (all leading dimensions flattened), b batch, t positions, nh heads, nkv key/value heads,
 * hs head size.
 */
import { call } from '../errors'
import { native, type Native } from '../native'
import { finite, floats, integer, size } from './check'

/**
 * Root-mean-square normalization with a gain: out = x rstd weight, where
 * rstd = 1 / sqrt(mean(x^2) + eps) of each row.
 */
export const rmsNorm = {
  /** x (n, width), weight (width) -> out (n, width), rstd (n). */
  forward(args: {
    x: Float32Array
    weight: Float32Array
    /** Columns of x. */
    width: number
    /** Added to the mean square. Default 1e-5. */
    eps?: number
  }): {
    out: Float32Array
    rstd: Float32Array
  } {
    const op = 'rmsNorm.forward'
    const x = floats(op, 'x', args.x)
    const weight = floats(op, 'weight', args.weight)
    const width = size(op, 'width', args.width)
    const eps = finite(op, 'eps', args.eps ?? 1e-5, 0)
    const [out, rstd] = call(() => native.ops.rmsNormForward(x, weight, width, eps))
    return { out, rstd }
  },
  /**
   * dout (n, width), the inputs and the rstd of the forward pass -> dx (n, width), dweight (width).
   */
  backward(args: {
    dout: Float32Array
    x: Float32Array
    weight: Float32Array
    rstd: Float32Array
    /** Columns of x. */
    width: number
  }): { dx: Float32Array; dweight: Float32Array } {
    const op = 'rmsNorm.backward'
    const dout = floats(op, 'dout', args.dout)
    const x = floats(op, 'x', args.x)
    const weight = floats(op, 'weight', args.weight)
    const rstd = floats(op, 'rstd', args.rstd)
    const width = size(op, 'width', args.width)
    const [dx, dweight] = call(() => native.ops.rmsNormBackward(dout, x, weight, rstd, width))
    return { dx, dweight }
  },
}

export interface RopeSizes {
  /** Positions in a sequence. The rows of x are b sequences of t positions. */
  positions: number
  /** Heads in a row of x. */
  heads: number
  /** Width of a head, even. */
  headSize: number
  /** Base of the angles. Default 100000. */
  theta?: number
  /** Position of the first row of each sequence. Default 0. */
  firstPosition?: number
}

const ropeSizes = (op: string, s: RopeSizes): [number, number, number, number, number] => [
  size(op, 'positions', s.positions),
  size(op, 'heads', s.heads),
  size(op, 'headSize', s.headSize),
  finite(op, 'theta', s.theta ?? 100_000),
  integer(op, 'firstPosition', s.firstPosition ?? 0),
]

/**
 * Rotary position embedding on interleaved pairs of each head: pair k of position p is rotated by
 * p theta^(-2k / headSize).
 */
export const rope = {
  /** x (b, t, heads, headSize) -> out, of the same shape. */
  forward(args: RopeSizes & { x: Float32Array }): { out: Float32Array } {
    const op = 'rope.forward'
    const x = floats(op, 'x', args.x)
    const sizes = ropeSizes(op, args)
    return { out: call(() => native.ops.ropeForward(x, ...sizes)) }
  },
  /** dout (b, t, heads, headSize) -> dx, of the same shape: the rotation by the negative angles. */
  backward(args: RopeSizes & { dout: Float32Array }): { dx: Float32Array } {
    const op = 'rope.backward'
    const dout = floats(op, 'dout', args.dout)
    const sizes = ropeSizes(op, args)
    return { dx: call(() => native.ops.ropeBackward(dout, ...sizes)) }
  },
}

export interface AttentionSizes {
  batch: number
  positions: number
  /** Query heads. */
  numHeads: number
  /** Key/value heads, a divisor of numHeads. Default numHeads. */
  numKvHeads?: number
  headSize: number
}

const attentionSizes = (op: string, s: AttentionSizes): Native.AttentionSizes => ({
  batch: size(op, 'batch', s.batch),
  positions: size(op, 'positions', s.positions),
  numHeads: size(op, 'numHeads', s.numHeads),
  numKvHeads: size(op, 'numKvHeads', s.numKvHeads ?? s.numHeads),
  headSize: size(op, 'headSize', s.headSize),
})

/**
 * Causal scaled dot-product attention: softmax(q k^T / sqrt(headSize)) v, where a position attends
 * to itself and to earlier positions.
 */
export const attention = {
  /**
   * q (b, t, nh, hs), k and v (b, t, nkv, hs) -> out (b, t, nh, hs) and lse (b, nh, t), the
   * log-sum-exp of each row of scores, from which the backward pass recomputes the scores.
   */
  forward(args: AttentionSizes & { q: Float32Array; k: Float32Array; v: Float32Array }): {
    out: Float32Array
    lse: Float32Array
  } {
    const op = 'attention.forward'
    const q = floats(op, 'q', args.q)
    const k = floats(op, 'k', args.k)
    const v = floats(op, 'v', args.v)
    const sizes = attentionSizes(op, args)
    const [out, lse] = call(() => native.ops.attentionForward(q, k, v, sizes))
    return { out, lse }
  },
  /**
   * dout (b, t, nh, hs), the inputs and the results of the forward pass -> dq, dk, dv in the shapes
   * of q, k, v.
   */
  backward(
    args: AttentionSizes & {
      dout: Float32Array
      q: Float32Array
      k: Float32Array
      v: Float32Array
      out: Float32Array
      lse: Float32Array
    },
  ): { dq: Float32Array; dk: Float32Array; dv: Float32Array } {
    const op = 'attention.backward'
    const dout = floats(op, 'dout', args.dout)
    const q = floats(op, 'q', args.q)
    const k = floats(op, 'k', args.k)
    const v = floats(op, 'v', args.v)
    const out = floats(op, 'out', args.out)
    const lse = floats(op, 'lse', args.lse)
    const sizes = attentionSizes(op, args)
    const [dq, dk, dv] = call(() => native.ops.attentionBackward(dout, q, k, v, out, lse, sizes))
    return { dq, dk, dv }
  },
}

/** SiLU of each element: x sigmoid(x). */
export const silu = {
  /** x -> out, of the same length. */
  forward(args: { x: Float32Array }): { out: Float32Array } {
    const x = floats('silu.forward', 'x', args.x)
    return { out: call(() => native.ops.siluForward(x)) }
  },
  /** dout, x -> dx, of the same length. */
  backward(args: { dout: Float32Array; x: Float32Array }): { dx: Float32Array } {
    const dout = floats('silu.backward', 'dout', args.dout)
    const x = floats('silu.backward', 'x', args.x)
    return { dx: call(() => native.ops.siluBackward(dout, x)) }
  },
}

/** The gate of the feed-forward layer: silu(gate) up, where gate = w1 x and up = w3 x. */
export const swiglu = {
  /** gate, up -> out, of the same length. */
  forward(args: { gate: Float32Array; up: Float32Array }): { out: Float32Array } {
    const gate = floats('swiglu.forward', 'gate', args.gate)
    const up = floats('swiglu.forward', 'up', args.up)
    return { out: call(() => native.ops.swigluForward(gate, up)) }
  },
  /** dout, gate, up -> dgate, dup, of the same length. */
  backward(args: { dout: Float32Array; gate: Float32Array; up: Float32Array }): {
    dgate: Float32Array
    dup: Float32Array
  } {
    const op = 'swiglu.backward'
    const dout = floats(op, 'dout', args.dout)
    const gate = floats(op, 'gate', args.gate)
    const up = floats(op, 'up', args.up)
    const [dgate, dup] = call(() => native.ops.swigluBackward(dout, gate, up))
    return { dgate, dup }
  },
}
