/** `kindling import`: turns a model from another program into a run. */
import { Command } from 'commander'
import { z } from 'zod'
import { limits } from '../../limits'
import { parse } from '../../training/config'
import type { CourseSizes } from '../../exchange/model-files'
import { isHubSource, listModelFiles, localPath } from '../../exchange/hub'
import { parametersOf } from '../../training/estimates'
import { load, openModelSource } from '../../training/model-source'
import { RunFolder, runExists } from '../../training/run-folder'
import { save } from '../../training/save-model'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { count, megabytes, memory } from '../../format'
import { withInterrupt } from '../interrupt'
import { run, type Output } from '../output'
import { withProgress } from '../progress'
import { dryRun, printWrites } from '../shared-flags'

const fields = {
  out: z.string().meta({ value: 'dir' }).describe('run folder to create'),
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe("precision of the run's matrix multiplications (default: f32)"),
  num_heads: limits.width
    .optional()
    .describe(
      "attention heads; required for checkpoints of the course's code, which do not record them",
    ),
  max_seq_length: limits.positions
    .optional()
    .describe(
      'longest context of such a checkpoint (default: the length of its RoPE tables, else 512)',
    ),
  theta: z
    .number()
    .positive()
    .optional()
    .describe('RoPE base of such a checkpoint (default: 100000)'),
  dry_run: dryRun,
}

const EXAMPLES = [
  'kindling import models/SmolLM2-135M --out runs/smollm2',
  'kindling import smollm2.gguf --out runs/smollm2-gguf',
  'kindling import checkpoint.pt --num-heads 4 --out runs/course',
  'kindling import smollm2.gguf --out runs/smollm2 --dry-run',
]
const NOTES =
  'SOURCE is a Hugging Face folder (config.json, safetensors, tokenizer.json), a GGUF file, a ' +
  "PyTorch or safetensors checkpoint saved by the course's code, or hf:org/name, which needs the " +
  'package @huggingface/hub. Architectures: llama, mistral, qwen2, qwen3.'

export function importCommand(): Command {
  const command = new Command('import').description('turn a model from another program into a run')
  command.argument('<source>', 'folder, file, or hf:org/name')
  addFields(command, fields)
  addExamples(command, EXAMPLES, { notes: NOTES })
  return command.action(
    run(async (flags, output, [source]) => {
      const options = parse(z.strictObject(fields), flags)
      const { out, dry_run, num_heads, max_seq_length, theta } = options
      const sizes: CourseSizes = { numHeads: num_heads, maxSeqLength: max_seq_length, theta }
      if (dry_run) return printPlan(source!, sizes, out, output)
      const path = isHubSource(source!) ? await download(source!, output) : source!
      const loaded = await withInterrupt((signal) =>
        withProgress(`reading ${source!}`, output, (onProgress) =>
          load(path, { ...sizes, onMessage: (text) => output.note(text), signal, onProgress }),
        ),
      )
      const { model, config, tokenizer } = loaded
      const dtype = options.dtype ?? config.options.dtype
      const saved = { ...loaded, config: { ...config, options: { ...config.options, dtype } } }
      await withInterrupt((signal) =>
        withProgress(`writing ${out}`, output, (onProgress) =>
          save(out, saved, { signal, onProgress }),
        ),
      )
      const { vocabSize, maxSeqLength } = config.options
      output.line({ params: model.numParameters, vocabSize, maxSeqLength, out })
      output.text(`${count(model.numParameters)} parameters, ${vocabSize} tokens: ${out}`)
      if (!tokenizer) output.note('the model has no tokenizer')
    }),
  )
}

/** Downloads a model from the Hugging Face Hub. Returns its folder in the cache. */
function download(source: string, output: Output): Promise<string> {
  return withInterrupt((signal) =>
    withProgress(`downloading ${source}`, output, (onProgress) =>
      localPath(source, { signal, onProgress }),
    ),
  )
}

/**
 * Prints which files of a model on the Hugging Face Hub would be downloaded. Returns whether there
 * are any.
 */
async function printDownloads(source: string, out: string, output: Output): Promise<boolean> {
  const files = await withInterrupt((signal) => listModelFiles(source, { signal }))
  const missing = files.filter(({ isCached }) => !isCached)
  if (missing.length === 0) return false
  if (new RunFolder(out).exists) throw runExists(out)
  const bytes = missing.reduce((sum, file) => sum + file.bytes, 0)
  const downloads = missing.map(({ path }) => path)
  output.line({ dryRun: true, downloads, downloadBytes: bytes, writes: [out] })
  output.text(`would download ${megabytes(bytes)} MB from ${source}`)
  for (const file of missing) output.text(`  ${file.path} (${megabytes(file.bytes)} MB)`)
  printWrites(output, [out])
  return true
}

/**
 * Prints what would be imported; the weights are not read. For a Hugging Face model that is not in
 * the cache, only its files are known.
 */
async function printPlan(
  source: string,
  sizes: CourseSizes,
  out: string,
  output: Output,
): Promise<void> {
  if (isHubSource(source) && (await printDownloads(source, out, output))) return
  const { config, tokenizer } = await openModelSource(source, sizes)
  if (new RunFolder(out).exists) throw runExists(out)
  const { options } = config
  const { vocabSize, numLayers, dModel, maxSeqLength } = options
  const params = parametersOf(options)
  const bytes = params * Float32Array.BYTES_PER_ELEMENT
  output.line({ dryRun: true, params, vocabSize, maxSeqLength, bytes, writes: [out] })
  output.text(
    `${count(params)} parameters, ${vocabSize} tokens, ${numLayers} layers, width ${dModel}, ` +
      `context ${maxSeqLength}`,
  )
  printWrites(output, [`${out} (${memory(bytes)})`])
  if (!tokenizer) output.note('the model has no tokenizer')
}
