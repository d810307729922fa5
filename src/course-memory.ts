/**
 * The memory of training by the course's formula: the results of all products and of the softmax
 * are kept for the backward pass, in every layer, in f32, with one score per pair of positions and
 * head. This is what a straightforward implementation keeps; the engine keeps less.
 */

/** Bytes by the course's formula. */
export type CourseMemory = Record<
  'parameters' | 'gradients' | 'optimizer' | 'activations' | 'activationsPerSequence' | 'total',
  number
>

/** Sizes of the heads of a model. */
export interface HeadSizes {
  dModel: number
  numHeads: number
  numKvHeads?: number | undefined
  headSize?: number | undefined
}

/** Widths of all query heads, and of all key heads. */
export function widths(o: HeadSizes): { headSize: number; q: number; kv: number } {
  const headSize = o.headSize ?? o.dModel / o.numHeads
  return { headSize, q: o.numHeads * headSize, kv: (o.numKvHeads ?? o.numHeads) * headSize }
}

/**
 * Returns the activations of one sequence, as a number of elements. Per layer, for a context c, a
 * width d and h heads: q, k, v, the weighted sum, the output projection and the output of the
 * feed-forward layer (6 c d), the scores (h c^2), and two results of width d_ff (2 c d_ff). Then
 * the final norm (c d) and the logits (c vocabulary).
 */
export function courseActivations(
  o: HeadSizes & { dFf: number; numLayers: number; vocabSize: number; context: number },
): number {
  const { context: c, dModel: d } = o
  const { q, kv } = widths(o)
  const layer = c * (2 * q + 2 * kv + 2 * d) + o.numHeads * c * c + 2 * c * o.dFf
  return o.numLayers * layer + c * d + c * o.vocabSize
}
