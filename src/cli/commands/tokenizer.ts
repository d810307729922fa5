/** `kindling tokenizer`: trains and measures tokenizers. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { Tokenizer } from '../../tokenizer'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import { FILE_ARGUMENT, INPUT_FILES, corpusFields, inputFiles, threads } from '../shared-flags'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { duration } from '../../format'
import { withInterrupt } from '../interrupt'
import { run, usage } from '../output'
import { ByteProgress, CountProgress } from '../progress'
import { outliveOutput } from '../streams'
import { tokenizerStatsCommand } from './tokenizer-stats'

const fields = {
  type: z
    .enum(['bpe', 'chars'])
    .default('bpe')
    .describe('bpe: byte-level BPE; chars: one token per character'),
  vocab_size: limits.vocab
    .optional()
    .describe('vocabulary size, including the special tokens and the 256 bytes'),
  special_tokens: z
    .array(z.string().min(1))
    .optional()
    .describe('special tokens (default: <|endoftext|> for bpe, none for chars)'),
  pattern: z
    .string()
    .meta({ value: 'regex' })
    .default('gpt2')
    .describe(
      'how to split text into pre-tokens: gpt2, smollm, cl100k, llama3, qwen2 or a regular expression',
    ),
  min_frequency: z
    .int()
    .min(1)
    .default(1)
    .describe('merge only pairs that occur at least this often'),
  max_bytes: z
    .int()
    .min(1)
    .optional()
    .describe('stop reading after this many bytes of decompressed text (default: read all)'),
  ...corpusFields,
  out: z.string().meta({ value: 'dir' }).default('tokenizer').describe('output folder'),
  threads,
}

const EXAMPLES = [
  'kindling tokenizer train book.txt --vocab-size 10000 --out data/tokenizer',
  "kindling tokenizer train 'web/*.jsonl.gz' --text-field body --vocab-size 32000 --min-frequency 2",
  'zcat dump.gz | kindling tokenizer train - --vocab-size 32000 --max-bytes 1000000000',
  'kindling tokenizer train book.txt --type chars --out data/characters',
]

function tokenizerTrainCommand(): Command {
  const command = new Command('train').description('train a tokenizer on text files')
  command.argument(...FILE_ARGUMENT)
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: INPUT_FILES })
  return command.action(
    run(async (flags, output, names) => {
      const options = parse(z.strictObject(fields), flags)
      if (options.type === 'bpe' && options.vocab_size === undefined) {
        throw usage('bpe needs a vocabulary size; add --vocab-size, such as --vocab-size 10000')
      }
      if (options.type === 'chars' && options.vocab_size !== undefined) {
        throw usage(
          'vocab_size is for bpe only; with --type chars, the characters of the text decide the size',
        )
      }
      outliveOutput()
      const { files, reading: format } = await inputFiles(names, options, output)
      if (existsSync(join(options.out, 'vocab.json')))
        output.note(`the tokenizer in ${options.out} will be replaced`)
      const started = performance.now()
      const reading = new ByteProgress('reading', output, files.includes('-'))
      const merging = new CountProgress('merging', output, 'merges')
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
          ...format,
          signal,
          onProgress: (done, total) => reading.report(done, total),
          onMerge: (merges, wanted) => merging.report(merges, wanted),
        }),
      )
      output.clear()
      await tokenizer.save(options.out)
      const seconds = Number(((performance.now() - started) / 1000).toFixed(3))
      const { vocabSize, numMerges, replacedBytes } = tokenizer
      if (replacedBytes > 0) output.note(`${replacedBytes} bytes of invalid UTF-8 became U+FFFD`)
      output.line({ vocabSize, merges: numMerges, seconds, out: options.out })
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
