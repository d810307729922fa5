/** `kindling encode`: text files to a token store. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../config'
import { count, duration } from '../../logger'
import { TokenStore } from '../../token-store'
import { Tokenizer } from '../../tokenizer'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, usage } from '../output'

const fields = {
  tokenizer: z.string().optional().describe('folder of the tokenizer'),
  vocab_path: z.string().optional().describe('vocabulary, where there is no tokenizer folder'),
  merges_path: z.string().optional().describe('merges that belong to it'),
  special_tokens: z.array(z.string()).default(['<|endoftext|>']).describe('special tokens of the vocabulary'),
  out: z.string().describe('folder to write; a name that ends in _chunks is the store itself'),
  chunk_size: z.int().min(1).default(500_000).describe('tokens of a chunk file'),
  valid_fraction: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('share of the tokens, from the end, for validation'),
  threads: z.int().min(1).optional().describe('threads (default: the cores this process may use)'),
}

const EXAMPLES = `
Examples:
  kindling encode book.txt --tokenizer data/tokenizer --out data/book --valid-fraction 0.05
  kindling encode a.txt b.txt --vocab-path vocab.json --merges-path merges.txt --out data/2G_chunks`

export function encodeCommand(): Command {
  const command = new Command('encode').description('encode text files to a token store')
  command.argument('<file...>', 'text files, read as UTF-8')
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output, files) => {
      const options = parse(z.strictObject(fields), flags)
      const tokenizer = await openTokenizer(options)
      const started = performance.now()
      const summary = await withInterrupt((signal) =>
        TokenStore.encodeFiles(files, tokenizer, options.out, {
          chunkSize: options.chunk_size,
          validFraction: options.valid_fraction,
          ...(options.threads === undefined ? {} : { threads: options.threads }),
          signal,
          onProgress: (done, total) =>
            output.progress(`encoding: ${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`),
        }),
      )
      output.clear()
      const seconds = (performance.now() - started) / 1000
      const { tokens, bytes, replacedBytes } = summary
      if (replacedBytes > 0) {
        output.note(`${replacedBytes} bytes were no UTF-8 and became U+FFFD`)
      }
      output.line({ tokens, bytes, seconds: Number(seconds.toFixed(3)), out: options.out })
      output.text(
        `${tokens} tokens of ${count(bytes)} bytes in ${duration(seconds)} (${(bytes / 1e6 / seconds).toFixed(1)} MB/s): ${options.out}`,
      )
    }),
  )
}

/** The tokenizer that the flags name: a folder, or a vocabulary with its merges. */
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
  throw usage('give --tokenizer DIR, or --vocab-path and --merges-path')
}
