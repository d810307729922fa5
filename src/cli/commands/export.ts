/** `kindling export`: writes a trained model for other programs. */
import { Command } from 'commander'
import { z } from 'zod'
import {
  EXPORT_DTYPES,
  EXPORT_FORMATS,
  exportModel,
  planExport,
  type ExportOptions,
} from '../../exchange/export-model'
import { count, memory } from '../../format'
import { modelCard } from '../../runs/model-card'
import { parse } from '../../training/config'
import { load, openModelSource } from '../../training/model-source'
import { buildLoadedModel } from '../../training/run-plan'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, type Output } from '../output'
import { withProgress } from '../progress'
import { dryRun, printWrites } from '../shared-flags'

const fields = {
  format: z
    .enum(EXPORT_FORMATS)
    .default('hf')
    .describe(
      'hf: a folder for transformers and vLLM; gguf: a file for llama.cpp; ' +
        "safetensors: a file with Kindling's own tensor names",
    ),
  dtype: z
    .enum(EXPORT_DTYPES)
    .default('f32')
    .describe('element type of the tensors; q8_0 in GGUF only'),
  out: z.string().meta({ value: 'path' }).describe('new folder (hf), or file (gguf, safetensors)'),
  dry_run: dryRun,
}

const EXAMPLES = [
  'kindling export runs/book --out models/book',
  'kindling export runs/book --format gguf --dtype f16 --out book.gguf',
  'kindling export runs/book/checkpoints/step-00000500 --format safetensors --out book.safetensors',
  'kindling export runs/book --format gguf --dtype q8_0 --out book.gguf --dry-run',
]

export function exportCommand(): Command {
  const command = new Command('export').description('write a trained model for other programs')
  command.argument('<source>', 'run, or RUN/checkpoints/step-...')
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, [source]) => {
      const { format, dtype, out, dry_run } = parse(z.strictObject(fields), flags)
      const onMessage = (text: string): void => output.note(text)
      if (dry_run) return printPlan(source!, out, { format, dtype }, output)
      const loaded = await withInterrupt((signal) =>
        withProgress(`reading ${source!}`, output, (onProgress) =>
          load(source!, { onMessage, signal, onProgress }),
        ),
      )
      const card = format === 'hf' ? { 'README.md': await modelCard(source!, loaded) } : {}
      const companions = { ...loaded.companions, ...card }
      await withInterrupt((signal) =>
        withProgress(`writing ${out}`, output, (onProgress) =>
          exportModel(out, { ...loaded, companions }, { format, dtype, signal, onProgress }),
        ),
      )
      output.line({ format, dtype, step: loaded.step, out })
      output.text(`step ${loaded.step}, ${dtype}: ${out}`)
    }),
  )
}

/** Prints what would be exported; the weights are not read. */
async function printPlan(
  source: string,
  out: string,
  kind: Required<Pick<ExportOptions, 'format' | 'dtype'>>,
  output: Output,
): Promise<void> {
  const found = await openModelSource(source)
  const step = await found.step()
  const model = buildLoadedModel(found.config.options, { device: 'cpu' })
  try {
    const bytes = await planExport(out, { ...found, model }, kind)
    output.line({ dryRun: true, ...kind, step, bytes, writes: [out] })
    output.text(`step ${step}, ${kind.dtype}, ${count(model.numParameters)} parameters`)
    printWrites(output, [`${out} (${memory(bytes)})`])
  } finally {
    await model.close()
  }
}
