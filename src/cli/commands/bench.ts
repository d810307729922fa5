/** `kindling bench`: times the engine and the tokenizer. */
import { Command } from 'commander'
import { z } from 'zod'
import { toSnakeCase } from '../../case'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import { trainFields as runFields } from '../../training/fields'
import { PRESETS } from '../../training/presets'
import { benchGemm, type GemmBenchmark } from '../bench/gemm'
import { benchGenerate } from '../bench/generate'
import type { ProfileLine } from '../bench/profile'
import { benchBpe, benchEncode } from '../bench/text'
import { benchTrain } from '../bench/train'
import { addExamples } from '../examples'
import { addFields, type Fields } from '../flags'
import { count } from '../../format'
import { run, type Output } from '../output'
import { threads, openTokenizer, tokenizerFields } from '../shared-flags'

const names = Object.keys(PRESETS) as [string, ...string[]]

const engineFields = {
  preset: z
    .enum(names)
    .default('char')
    .describe(`model sizes by name: ${names.join(', ')}`),
  dtype: z.enum(['f32', 'bf16']).default('f32').describe('precision of the matrix multiplications'),
  device: runFields.device,
  tf32: runFields.tf32,
  threads,
}
const profile = z.boolean().default(false).describe('break down the time per step or token by op')
const batch = limits.batch.optional()
const warmup = z.int().min(0).default(3).describe('steps before the timed ones')

const trainFields = {
  ...engineFields,
  batch: batch.describe("sequences per step (default: the preset's)"),
  steps: z.int().min(1).optional().describe('timed steps (default: 300 for char, else 6)'),
  warmup,
  recompute: runFields.recompute,
  peak_tflops: runFields.peak_tflops,
  profile,
}
const gemmFields = {
  ...engineFields,
  batch: batch.describe("sequences per batch (default: the preset's)"),
  steps: z.int().min(1).default(10).describe('timed runs of each multiplication'),
  warmup,
}
const generateFields = {
  ...engineFields,
  batch: limits.batch.default(1).describe('prompts to decode in parallel'),
  max_tokens: z.int().min(1).default(240).describe('tokens to decode per prompt'),
  profile,
}
const file = z
  .array(z.string().meta({ value: 'file' }))
  .min(1)
  .describe('text files, patterns or folders')
const encodeFields = { file, ...tokenizerFields, threads }
const bpeFields = {
  file,
  vocab_size: limits.vocab.default(10_000).describe('vocabulary size'),
  threads,
}

/** One benchmark: a subcommand with its flags. */
interface Benchmark<F extends Record<string, z.ZodType>> {
  name: string
  description: string
  fields: F
  examples: readonly string[]
  run: (options: z.output<z.ZodObject<F>>, output: Output) => Promise<void>
}

function subcommand<F extends Record<string, z.ZodType>>(benchmark: Benchmark<F>): Command {
  const { name, description, fields, examples } = benchmark
  const command = new Command(name).description(description)
  addFields(command, fields as Fields)
  addExamples(command, examples)
  return command.action(
    run(async (flags, output) => {
      const options = parse(z.strictObject(fields), flags) as z.output<z.ZodObject<F>>
      await benchmark.run(options, output)
    }),
  )
}

/** Prints a result: JSON, or its fields in two columns with the profile as a table below. */
function show(output: Output, result: object & { profile?: ProfileLine[] }): void {
  output.line(result)
  const { profile: lines, ...fields } = result
  for (const [name, value] of Object.entries(toSnakeCase(fields))) {
    const text = typeof value === 'number' && value >= 1e4 ? count(value) : String(value)
    output.text(`${name.padEnd(26)}${text.padStart(14)}`)
  }
  if (lines) showProfile(output, lines)
}

function showProfile(output: Output, lines: readonly ProfileLine[]): void {
  const row = (op: string, calls: string, ms: string, share: string, gflops: string): void =>
    output.text(
      `${op.padEnd(42)}${calls.padStart(7)}${ms.padStart(11)}${share.padStart(8)}${gflops.padStart(9)}`,
    )
  output.text('')
  row('op', 'calls', 'ms', 'share', 'GFLOP/s')
  for (const { op, callsPerStep, msPerStep, share, gflops } of lines) {
    const percent = `${(100 * share).toFixed(1)}%`
    row(op, String(callsPerStep), msPerStep.toFixed(2), percent, gflops?.toFixed(1) ?? '')
  }
}

function showProduct(output: Output, product: GemmBenchmark): void {
  output.line(product)
  const { name, pass, rows, inputs, outputs, gflops } = product
  const shape = `${rows} x ${inputs} x ${outputs}`
  output.text(
    `${name.padEnd(8)}${pass.padEnd(17)}${shape.padEnd(24)}${gflops.toFixed(1).padStart(9)} GFLOP/s`,
  )
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('benchmark the engine and the tokenizer')
    .addCommand(
      subcommand({
        name: 'train',
        description: 'time training steps on random tokens',
        fields: trainFields,
        examples: ['kindling bench train --preset char --profile'],
        run: async (options, output) => show(output, await benchTrain(options)),
      }),
    )
    .addCommand(
      subcommand({
        name: 'gemm',
        description: "time the matrix multiplications of a model's layers",
        fields: gemmFields,
        examples: ['kindling bench gemm --preset seed --threads 2'],
        run: async (options, output) => {
          for (const product of await benchGemm(options)) showProduct(output, product)
        },
      }),
    )
    .addCommand(
      subcommand({
        name: 'encode',
        description: 'time the encoding of a file',
        fields: encodeFields,
        examples: ['kindling bench encode --file book.txt --tokenizer data/tokenizer'],
        run: async (options, output) => {
          const tokenizer = await openTokenizer(options)
          show(output, await benchEncode(options.file, tokenizer, options.threads))
        },
      }),
    )
    .addCommand(
      subcommand({
        name: 'bpe',
        description: 'time the training of a tokenizer on a file',
        fields: bpeFields,
        examples: ['kindling bench bpe --file book.txt --vocab-size 10000'],
        run: async (options, output) =>
          show(output, await benchBpe(options.file, options.vocab_size, options.threads)),
      }),
    )
    .addCommand(
      subcommand({
        name: 'generate',
        description: 'time decoding with random weights',
        fields: generateFields,
        examples: ['kindling bench generate --preset seed --batch 8'],
        run: async (options, output) => show(output, await benchGenerate(options)),
      }),
    )
}
