/** Flags that name a tokenizer: a folder, or a vocabulary with its merges. */
import { z } from 'zod'
import { Tokenizer } from '../tokenizer'
import { usage } from './output'

export const tokenizerFields = {
  tokenizer: z.string().meta({ value: 'dir' }).optional().describe('tokenizer folder'),
  vocab_path: z
    .string()
    .meta({ value: 'file' })
    .optional()
    .describe('vocabulary file, in place of a tokenizer folder'),
  merges_path: z
    .string()
    .meta({ value: 'file' })
    .optional()
    .describe('merges file of that vocabulary'),
  special_tokens: z
    .array(z.string())
    .default(['<|endoftext|>'])
    .describe('special tokens of that vocabulary'),
}

/**
 * Opens the tokenizer that the flags name.
 *
 * @throws KindlingError `ERR_USAGE` if they name none.
 */
export async function openTokenizer(options: {
  tokenizer?: string | undefined
  vocab_path?: string | undefined
  merges_path?: string | undefined
  special_tokens: string[]
}): Promise<Tokenizer> {
  const { tokenizer, vocab_path, merges_path, special_tokens } = options
  if (tokenizer !== undefined) return Tokenizer.open(tokenizer)
  if (vocab_path !== undefined && merges_path !== undefined) {
    return Tokenizer.fromFiles(vocab_path, merges_path, special_tokens)
  }
  throw usage('no tokenizer given; add --tokenizer DIR, or both --vocab-path and --merges-path')
}
