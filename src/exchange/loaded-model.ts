/** Schemas of what `load` returns, for the functions that take it. */
import { z } from 'zod'
import { isObject } from '../options'
import type { Tokenizer } from '../tokenizer'
import type { Transformer } from '../transformer'
import { companionsSchema } from './companions'

/** `Transformer.toNative` and `Tokenizer.toNative` then check that the objects are what they claim. */
export const loadedModelFields = {
  model: z.custom<Transformer>(isObject, 'must be a Transformer'),
  tokenizer: z.custom<Tokenizer>(isObject, 'must be a Tokenizer or null').nullable(),
  companions: companionsSchema.default({}),
}
