/** `kindling tokenizer`: train one, and measure several. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { duration } from '../logger'
import { Tokenizer } from '../../tokenizer'
import { ByteProgress, CountProgress } from '../progress'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, usage } from '../output'
import { corpusFields, corpusOptions } from '../corpus-flags'
import { tokenizerStatsCommand } from './tokenizer-stats'

const fields = {
  type: z
    .enum(['bpe', 'chars'])
    .default('bpe')
    .describe('bpe: byte-level pairs; chars: one token a character'),
  vocab_size: z
    .int()
    .min(1)
    .optional()
    .describe('entries in all, special tokens and the 256 bytes included'),
  special_tokens: z
    .array(z.string().min(1))
    .optional()
    .describe('special tokens (default: <|endoftext|> for bpe, none for chars)'),
  pattern: z
    .string()
    .default('gpt2')
    .describe('cuts text into words: gpt2, cl100k, llama3 or a regular expression'),
  min_frequency: z.int().min(1).default(1).describe('least count of a pair that becomes a merge'),
  max_bytes: z
    .int()
    .min(1)
    .optional()
    .describe(
      'bytes to be read at most, of all files in their order, once decompressed (default: all)',
    ),
  ...corpusFields,
  out: z.string().default('tokenizer').describe('folder to write'),
  threads: z.int().min(1).optional().describe('threads (default: the cores this process may use)'),
}

const EXAMPLES = `
Files may be plain, gzip or zstd; - is standard input; quoted patterns as 'web/**/*.jsonl.zst' stand for what they match.

Examples:
  kindling tokenizer train book.txt --vocab-size 10000 --out data/tokenizer
  kindling tokenizer train 'web/*.jsonl.gz' --text-field body --vocab-size 32000 --min-frequency 2 --out data/tokenizer
  zcat dump.gz | kindling tokenizer train - --vocab-size 32000 --max-bytes 1000000000 --out data/tokenizer
  kindling tokenizer train book.txt --type chars --out data/characters`

function tokenizerTrainCommand(): Command {
  const command = new Command('train').description('train a tokenizer on text files')
  command.argument('<file...>', 'text or JSON Lines, read as UTF-8')
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output, files) => {
      const options = parse(z.strictObject(fields), flags)
      if (options.type === 'bpe' && options.vocab_size === undefined) {
        throw usage('--vocab-size is needed for bpe, as --vocab-size 10000')
      }
      const started = performance.now()
      const reading = new ByteProgress('reading', output, files.includes('-'))
      const merging = new CountProgress('merging', output)
      const tokenizer = await withInterrupt((signal) =>
        Tokenizer.train(files, {
          type: options.type,
          ...(options.vocab_size === undefined ? {} : { vocabSize: options.vocab_size }),
          specialTokens:
            options.special_tokens ?? (options.type === 'bpe' ? ['<|endoftext|>'] : []),
          ...(options.threads === undefined ? {} : { threads: options.threads }),
          pattern: options.pattern,
          minFrequency: options.min_frequency,
          ...(options.max_bytes === undefined ? {} : { maxBytes: options.max_bytes }),
          ...corpusOptions(options),
          signal,
          onProgress: (done, total) => reading.report(done, total),
          onMerge: (merges, wanted) => merging.report(merges, wanted),
        }),
      )
      output.clear()
      await tokenizer.save(options.out)
      const seconds = Number(((performance.now() - started) / 1000).toFixed(3))
      const { vocabSize, numMerges, replacedBytes } = tokenizer
      if (replacedBytes > 0) output.note(`${replacedBytes} bytes were no UTF-8 and became U+FFFD`)
      output.line({ vocab_size: vocabSize, merges: numMerges, seconds, out: options.out })
      output.text(
        `${vocabSize} tokens, ${numMerges} merges in ${duration(seconds)}: ${options.out}`,
      )
    }),
  )
}

export function tokenizerCommand(): Command {
  return new Command('tokenizer')
    .description('train and measure tokenizers')
    .addCommand(tokenizerTrainCommand())
    .addCommand(tokenizerStatsCommand())
}
