/**
 * Softmax, log-softmax and cross-entropy, forward and backward.
 * n is the number of rows, all leading dimensions flattened.
 */
import { call } from '../errors'
import { native } from '../native'
import { finite, floats, size, targetIds } from './check'

/**
 * Softmax over the last dimension. A score of -Infinity has probability 0; a row of nothing else
 * becomes NaN.
 */
export const softmax = {
  /** x (n, columns) -> out (n, columns). Each row sums to 1. */
  forward(args: { x: Float32Array; columns: number }): { out: Float32Array } {
    const x = floats('softmax.forward', 'x', args.x)
    const columns = size('softmax.forward', 'columns', args.columns)
    return { out: call(() => native.ops.softmaxForward(x, columns)) }
  },
  /** dout (n, columns), the out of the forward pass -> dx (n, columns). */
  backward(args: { dout: Float32Array; out: Float32Array; columns: number }): { dx: Float32Array } {
    const dout = floats('softmax.backward', 'dout', args.dout)
    const out = floats('softmax.backward', 'out', args.out)
    const columns = size('softmax.backward', 'columns', args.columns)
    return { dx: call(() => native.ops.softmaxBackward(dout, out, columns)) }
  },
}

/** Logarithm of the softmax over the last dimension. */
export const logSoftmax = {
  /** x (n, columns) -> out (n, columns) = x - logsumexp(x). */
  forward(args: { x: Float32Array; columns: number }): { out: Float32Array } {
    const x = floats('logSoftmax.forward', 'x', args.x)
    const columns = size('logSoftmax.forward', 'columns', args.columns)
    return { out: call(() => native.ops.logSoftmaxForward(x, columns)) }
  },
  /** dout (n, columns), the out of the forward pass -> dx (n, columns). */
  backward(args: { dout: Float32Array; out: Float32Array; columns: number }): { dx: Float32Array } {
    const dout = floats('logSoftmax.backward', 'dout', args.dout)
    const out = floats('logSoftmax.backward', 'out', args.out)
    const columns = size('logSoftmax.backward', 'columns', args.columns)
    return { dx: call(() => native.ops.logSoftmaxBackward(dout, out, columns)) }
  },
}

/**
 * Mean over the rows of the log-sum-exp minus the score of the target, in nats. Rows with a target
 * of -100 are ignored.
 */
export const crossEntropy = {
  /** logits (n, vocabSize), targets (n) -> loss, and lse (n), the log-sum-exp of each row. */
  forward(args: { logits: Float32Array; targets: Int32Array | Uint32Array; vocabSize: number }): {
    loss: number
    lse: Float32Array
  } {
    const op = 'crossEntropy.forward'
    const logits = floats(op, 'logits', args.logits)
    const targets = targetIds(op, 'targets', args.targets)
    const vocabSize = size(op, 'vocabSize', args.vocabSize)
    const { loss, lse } = call(() => native.ops.crossEntropyForward(logits, targets, vocabSize))
    return { loss, lse }
  },
  /**
   * logits (n, vocabSize), targets (n), the lse of the forward pass -> dlogits (n, vocabSize), the
   * gradient of the mean loss, multiplied by `dout` (default 1).
   */
  backward(args: {
    logits: Float32Array
    targets: Int32Array | Uint32Array
    lse: Float32Array
    vocabSize: number
    dout?: number
  }): { dlogits: Float32Array } {
    const op = 'crossEntropy.backward'
    const logits = floats(op, 'logits', args.logits)
    const targets = targetIds(op, 'targets', args.targets)
    const lse = floats(op, 'lse', args.lse)
    const vocabSize = size(op, 'vocabSize', args.vocabSize)
    const dout = finite(op, 'dout', args.dout ?? 1)
    return {
      dlogits: call(() => native.ops.crossEntropyBackward(logits, targets, lse, vocabSize, dout)),
    }
  },
}
