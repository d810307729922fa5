/** `kindling bench`: times the native core. */
import { Command } from 'commander'
import { z } from 'zod'
import * as bench from '../bench'
import { parse, trainFields as trainFieldsOfARun } from '../../training/config'
import { count } from '../logger'
import { PRESETS } from '../../training/presets'
import { addFields, type Fields } from '../flags'
import { run, type Output } from '../output'
import { openTokenizer } from './encode'

const names = Object.keys(PRESETS) as [string, ...string[]]
const engine = {
  preset: z
    .enum(names)
    .default('char')
    .describe(`sizes by name: ${names.join(', ')}`),
  dtype: z.enum(['f32', 'bf16']).default('f32').describe('arithmetic of the matrix products'),
  device: trainFieldsOfARun.device,
  tf32: trainFieldsOfARun.tf32,
  threads: z.int().min(1).optional().describe('threads (default: the cores this process may use)'),
}
const profile = z
  .boolean()
  .default(false)
  .describe('show where the time of a step, or of a token, goes, an op a line')
const warmup = z.int().min(0).default(3).describe('steps that are not counted')

const trainFields = {
  ...engine,
  batch: z.int().min(1).optional().describe("sequences a step (default: the preset's)"),
  steps: z.int().min(1).optional().describe('steps counted (default: char 300, others 6)'),
  warmup,
  recompute: trainFieldsOfARun.recompute,
  peak_tflops: trainFieldsOfARun.peak_tflops,
  profile,
}
const gemmFields = {
  ...engine,
  steps: z.int().min(1).default(10).describe('times each product is run'),
  warmup,
}
const generateFields = {
  ...engine,
  max_tokens: z.int().min(1).default(240).describe('tokens drawn'),
  profile,
}
const file = z.string().describe('text file')
const encodeFields = {
  file,
  tokenizer: z.string().optional().describe('folder of the tokenizer'),
  vocab_path: z.string().optional().describe('vocabulary, where there is no tokenizer folder'),
  merges_path: z.string().optional().describe('merges that belong to it'),
  special_tokens: z
    .array(z.string())
    .default(['<|endoftext|>'])
    .describe('special tokens of the vocabulary'),
  threads: engine.threads,
}
const bpeFields = {
  file,
  vocab_size: z.int().min(1).default(10_000).describe('entries of the vocabulary'),
  threads: engine.threads,
}

/** A command of its own for each thing timed. */
function timing<F extends Record<string, z.ZodType>>(
  name: string,
  description: string,
  fields: F,
  example: string,
  work: (options: z.output<z.ZodObject<F>>, output: Output) => Promise<void>,
): Command {
  const command = new Command(name).description(description)
  addFields(command, fields as Fields).addHelpText(
    'after',
    `\nExamples:\n  kindling bench ${name} ${example}`,
  )
  return command.action(
    run(async (flags, output) =>
      work(parse(z.strictObject(fields), flags) as z.output<z.ZodObject<F>>, output),
    ),
  )
}

/** JSON in JSON mode, else the fields in columns, and a profile as a table below them. */
function show(output: Output, result: object & { profile?: bench.ProfileLine[] }): void {
  output.line(result)
  const { profile, ...fields } = result
  for (const [name, value] of Object.entries(fields)) {
    const text = typeof value === 'number' && value >= 1e4 ? count(value) : String(value)
    output.text(`${name.padEnd(26)}${text.padStart(14)}`)
  }
  if (profile) showProfile(output, profile)
}

function showProfile(output: Output, profile: bench.ProfileLine[]): void {
  output.text(
    `\n${'op'.padEnd(42)}${'calls'.padStart(7)}${'ms'.padStart(11)}${'share'.padStart(8)}${'GFLOP/s'.padStart(9)}`,
  )
  for (const { op, calls_per_step, ms_per_step, share, gflops } of profile) {
    output.text(
      `${op.padEnd(42)}${String(calls_per_step).padStart(7)}${ms_per_step.toFixed(2).padStart(11)}${`${(100 * share).toFixed(1)}%`.padStart(8)}${(gflops?.toFixed(1) ?? '').padStart(9)}`,
    )
  }
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('time the native core')
    .addCommand(
      timing(
        'train',
        'training steps on random tokens',
        trainFields,
        '--preset char --profile',
        async (o, output) => show(output, await bench.benchTrain(o)),
      ),
    )
    .addCommand(
      timing(
        'gemm',
        "the model's matrix products",
        gemmFields,
        '--preset seed --threads 2',
        async (o, output) => {
          for (const shape of await bench.benchGemm(o)) {
            output.line(shape)
            output.text(
              `${shape.name.padEnd(8)}${shape.pass.padEnd(17)}${`${shape.rows} x ${shape.inputs} x ${shape.outputs}`.padEnd(24)}${shape.gflops.toFixed(1).padStart(9)} GFLOP/s`,
            )
          }
        },
      ),
    )
    .addCommand(
      timing(
        'encode',
        'encoding of a file',
        encodeFields,
        '--file book.txt --tokenizer data/tokenizer',
        async (o, output) =>
          show(output, await bench.benchEncode(o.file, await openTokenizer(o), o.threads)),
      ),
    )
    .addCommand(
      timing(
        'bpe',
        'training of a tokenizer',
        bpeFields,
        '--file book.txt --vocab-size 10000',
        async (o, output) => show(output, await bench.benchBpe(o.file, o.vocab_size, o.threads)),
      ),
    )
    .addCommand(
      timing(
        'generate',
        'decoding with random weights',
        generateFields,
        '--preset seed',
        async (o, output) => show(output, await bench.benchGenerate(o)),
      ),
    )
}
