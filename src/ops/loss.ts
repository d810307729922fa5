/**
 * Softmax, its logarithm, and cross-entropy, forward and backward.
 * Legend: n rows (any leading dimensions, flattened), v vocab.
 */
import { call } from '../errors'
import { native } from '../native'
import { finite, floats, size, targetIds } from './check'

/** Softmax over the last dimension. */
export const softmax = {
  /** x (n, columns) -> out (n, columns); every row is positive and sums to 1. */
  forward(args: { x: Float32Array; columns: number }): { out: Float32Array } {
    const x = floats('softmax.forward', 'x', args.x)
    const columns = size('softmax.forward', 'columns', args.columns)
    return { out: call(() => native.ops.softmaxForward(x, columns)) }
  },
  /** dout and the out of the forward pass (n, columns) -> dx (n, columns). */
  backward(args: { dout: Float32Array; out: Float32Array; columns: number }): { dx: Float32Array } {
    const dout = floats('softmax.backward', 'dout', args.dout)
    const out = floats('softmax.backward', 'out', args.out)
    const columns = size('softmax.backward', 'columns', args.columns)
    return { dx: call(() => native.ops.softmaxBackward(dout, out, columns)) }
  },
}

/** Logarithm of the softmax over the last dimension, computed without overflow. */
export const logSoftmax = {
  /** x (n, columns) -> out (n, columns) = x - logsumexp(x). */
  forward(args: { x: Float32Array; columns: number }): { out: Float32Array } {
    const x = floats('logSoftmax.forward', 'x', args.x)
    const columns = size('logSoftmax.forward', 'columns', args.columns)
    return { out: call(() => native.ops.logSoftmaxForward(x, columns)) }
  },
  /** dout and the out of the forward pass (n, columns) -> dx (n, columns). */
  backward(args: { dout: Float32Array; out: Float32Array; columns: number }): { dx: Float32Array } {
    const dout = floats('logSoftmax.backward', 'dout', args.dout)
    const out = floats('logSoftmax.backward', 'out', args.out)
    const columns = size('logSoftmax.backward', 'columns', args.columns)
    return { dx: call(() => native.ops.logSoftmaxBackward(dout, out, columns)) }
  },
}

/** Mean over the rows of log-sum-exp minus the target's score; a target of -100 is not counted. */
export const crossEntropy = {
  /** logits (..., vocabSize), targets (...) -> loss in nats, and lse (...), which the backward pass takes. */
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
   * logits (..., vocabSize), targets (...), lse (...) of the forward pass -> dlogits (..., vocabSize), the gradient of
   * the mean loss times `dout` (default 1).
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
