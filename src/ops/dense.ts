/**
 * Matrix products and the embedding, forward and backward.
 * n is the number of rows, all leading dimensions flattened.
 */
import { call } from '../errors'
import { native } from '../native'
import { floats, optionalFloats, size, tokenIds } from './check'

/** Sizes of a matrix product: (m, k) by (k, n) gives (m, n). */
export interface MatmulSizes {
  m: number
  k: number
  n: number
}

const matmulSizes = (op: string, s: MatmulSizes): [number, number, number] => [
  size(op, 'm', s.m),
  size(op, 'k', s.k),
  size(op, 'n', s.n),
]

/** Product of two matrices. */
export const matmul = {
  /** a (m, k), b (k, n) -> out (m, n) = a b. */
  forward(args: MatmulSizes & { a: Float32Array; b: Float32Array }): { out: Float32Array } {
    const op = 'matmul.forward'
    const a = floats(op, 'a', args.a)
    const b = floats(op, 'b', args.b)
    const sizes = matmulSizes(op, args)
    return { out: call(() => native.ops.matmulForward(a, b, ...sizes)) }
  },
  /** dout (m, n), a (m, k), b (k, n) -> da (m, k) = dout b^T, db (k, n) = a^T dout. */
  backward(args: MatmulSizes & { dout: Float32Array; a: Float32Array; b: Float32Array }): {
    da: Float32Array
    db: Float32Array
  } {
    const op = 'matmul.backward'
    const dout = floats(op, 'dout', args.dout)
    const a = floats(op, 'a', args.a)
    const b = floats(op, 'b', args.b)
    const sizes = matmulSizes(op, args)
    const [da, db] = call(() => native.ops.matmulBackward(dout, a, b, ...sizes))
    return { da, db }
  },
}

export interface LinearSizes {
  /** Rows of x: the product of all leading dimensions. */
  rows: number
  /** Columns of x. */
  inputs: number
  /** Columns of out. */
  outputs: number
}

const linearSizes = (op: string, s: LinearSizes): [number, number, number] => [
  size(op, 'rows', s.rows),
  size(op, 'inputs', s.inputs),
  size(op, 'outputs', s.outputs),
]

/** A linear layer. The weight is (inputs, outputs), as in checkpoint files. */
export const linear = {
  /**
   * x (rows, inputs), weight (inputs, outputs), bias (outputs)
   * -> out (rows, outputs) = x weight + bias.
   */
  forward(args: LinearSizes & { x: Float32Array; weight: Float32Array; bias?: Float32Array }): {
    out: Float32Array
  } {
    const op = 'linear.forward'
    const x = floats(op, 'x', args.x)
    const weight = floats(op, 'weight', args.weight)
    const bias = optionalFloats(op, 'bias', args.bias)
    const sizes = linearSizes(op, args)
    return { out: call(() => native.ops.linearForward(x, weight, ...sizes, bias)) }
  },
  /**
   * dout (rows, outputs) -> dx (rows, inputs), dweight (inputs, outputs), and dbias (outputs), the
   * column sums of dout.
   */
  backward(args: LinearSizes & { dout: Float32Array; x: Float32Array; weight: Float32Array }): {
    dx: Float32Array
    dweight: Float32Array
    dbias: Float32Array
  } {
    const op = 'linear.backward'
    const dout = floats(op, 'dout', args.dout)
    const x = floats(op, 'x', args.x)
    const weight = floats(op, 'weight', args.weight)
    const sizes = linearSizes(op, args)
    const [dx, dweight, dbias] = call(() => native.ops.linearBackward(dout, x, weight, ...sizes))
    return { dx, dweight, dbias }
  },
}

export interface EmbeddingSizes {
  vocabSize: number
  dModel: number
}

/** Looks up rows of a table by token id. */
export const embedding = {
  /** ids (n), weight (vocabSize, dModel) -> out (n, dModel). */
  forward(args: EmbeddingSizes & { ids: Uint32Array | Int32Array; weight: Float32Array }): {
    out: Float32Array
  } {
    const op = 'embedding.forward'
    const ids = tokenIds(op, 'ids', args.ids)
    const weight = floats(op, 'weight', args.weight)
    const vocabSize = size(op, 'vocabSize', args.vocabSize)
    const dModel = size(op, 'dModel', args.dModel)
    return { out: call(() => native.ops.embeddingForward(ids, weight, vocabSize, dModel)) }
  },
  /**
   * dout (n, dModel), ids (n) -> dweight (vocabSize, dModel). A row is the sum of dout over the
   * occurrences of its id.
   */
  backward(args: EmbeddingSizes & { dout: Float32Array; ids: Uint32Array | Int32Array }): {
    dweight: Float32Array
  } {
    const op = 'embedding.backward'
    const dout = floats(op, 'dout', args.dout)
    const ids = tokenIds(op, 'ids', args.ids)
    const vocabSize = size(op, 'vocabSize', args.vocabSize)
    const dModel = size(op, 'dModel', args.dModel)
    return { dweight: call(() => native.ops.embeddingBackward(dout, ids, vocabSize, dModel)) }
  },
}
