/** `kindling generate`: prints text from a trained model as it is decoded. */
import { Command } from 'commander'
import { z } from 'zod'
import { KindlingError } from '../../errors'
import { generate, generateBatch, type GenerateOptions, type GenerateResult } from '../../generate'
import { END_OF_TEXT } from '../../tokenizer'
import { parse } from '../../training/config'
import { startPrompt } from '../../training/document-start'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { SOURCE_ARGUMENT, checkpointFields, loadModel } from '../shared-flags'
import { argumentsOr, run, type Output } from '../output'

const fields = {
  ...checkpointFields,
  prompt: z
    .array(z.string())
    .meta({ repeat: true })
    .default([''])
    .describe('text to continue; repeat it for a batch (default: start a new document)'),
  max_tokens: z.int().min(1).default(200).describe('maximum number of new tokens'),
  temperature: z.number().min(0).default(1).describe('divides the logits; 0 is greedy decoding'),
  top_k: z.int().min(1).optional().describe('sample from the k most likely tokens'),
  top_p: z
    .number()
    .positive()
    .max(1)
    .default(0.9)
    .describe('sample from the most likely tokens whose probabilities add up to p'),
  repetition_penalty: z
    .number()
    .positive()
    .default(1)
    .describe('lowers the logits of tokens in the context; 1 has no effect'),
  seed: z.int().min(0).optional().describe('random seed (default: a random one, which is printed)'),
  stop: z
    .array(z.string().min(1))
    .meta({ repeat: true })
    .default([])
    .describe('text that ends the output; may be repeated'),
  rolling_cache: z
    .boolean()
    .default(false)
    .describe('reuse the cache when the context is full: faster, but not exact'),
  echo: z.boolean().default(true).describe('leave the prompt out of the output'),
}

const EXAMPLES = [
  'kindling generate runs/book "It was" --temperature 0.8',
  'kindling generate runs/book "He said" "She said" --max-tokens 50 --json',
  'kindling generate --checkpoint runs/book/checkpoints/step-00000500 --prompt "It was"',
]

export function generateCommand(): Command {
  const command = new Command('generate').description('generate text with a trained model')
  command.argument(...SOURCE_ARGUMENT)
  command.argument('[prompt...]', 'text to continue, as --prompt; several make a batch')
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, [source, ...prompts]) => {
      const prompt = argumentsOr(prompts, flags['prompt'], '--prompt')
      const options = parse(z.strictObject(fields), { ...flags, prompt })
      const { model, tokenizer, config, stopIds } = await loadModel(source, options, (text) =>
        output.note(text),
      )
      if (!tokenizer) {
        throw new KindlingError(
          'ERR_NOT_FOUND',
          'the model has no tokenizer, which generating text needs; train with a tokenizer',
        )
      }
      const start = startPrompt(tokenizer, config.endOfText)
      const promptTexts = options.prompt.map((text) => text || start)
      if (start !== '' && options.prompt.includes('')) {
        output.note(`the model has not seen ${END_OF_TEXT}: the text starts from a line break`)
      }
      await withInterrupt(async (signal) => {
        const settings = { ...generateOptions(options), stopIds, signal }
        const started = performance.now()
        const results =
          promptTexts.length === 1 && !output.json
            ? [await stream(generate(model, tokenizer, promptTexts[0]!, settings), output)]
            : await generateBatch(model, tokenizer, promptTexts, settings)
        report(results, (performance.now() - started) / 1000, output)
      })
    }),
  )
}

function generateOptions(options: z.output<z.ZodObject<typeof fields>>): GenerateOptions {
  return {
    maxTokens: options.max_tokens,
    temperature: options.temperature,
    ...(options.top_k === undefined ? {} : { topK: options.top_k }),
    topP: options.top_p,
    repetitionPenalty: options.repetition_penalty,
    ...(options.seed === undefined ? {} : { seed: options.seed }),
    stop: options.stop,
    rollingCache: options.rolling_cache,
    echo: options.echo,
  }
}

/** Prints a text piece by piece. */
async function stream(
  pieces: AsyncGenerator<string, GenerateResult, void>,
  output: Output,
): Promise<GenerateResult> {
  for (;;) {
    const next = await pieces.next()
    if (next.done) {
      output.write('\n')
      return next.value
    }
    output.write(next.value)
  }
}

/** Prints the texts of a batch, or JSON lines, and the speed. */
function report(results: readonly GenerateResult[], seconds: number, output: Output): void {
  const tokens = results.reduce((sum, result) => sum + result.ids.length, 0)
  const tokensPerSecond = Number((tokens / seconds).toFixed(1))
  for (const [row, { prompt, text, ids, stopReason, seed }] of results.entries()) {
    if (results.length > 1) output.text(`${row === 0 ? '' : '\n'}--- ${row + 1}\n${text}`)
    output.line({ prompt, text, ids: [...ids], stopReason, tokensPerSecond, seed })
  }
  if (!output.json) output.note(`seed ${results[0]!.seed}, ${tokensPerSecond} tokens/s`)
}
