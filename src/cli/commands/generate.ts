/** `kindling generate`: text from a trained model, as it is drawn. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse, trainFields } from '../../training/config'
import { KindlingError } from '../../errors'
import { generate, generateBatch, type GenerateOptions, type GenerateResult } from '../../generate'
import { loadRun } from '../../training/run-folder'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run, type Output } from '../output'

const fields = {
  run: z.string().optional().describe('run whose newest checkpoint is taken'),
  checkpoint: z.string().optional().describe('one checkpoint, as RUN/checkpoints/step-00000500'),
  prompt: z
    .array(z.string())
    .default([''])
    .describe('text to continue; several make a batch (default: a new document)'),
  max_tokens: z.int().min(1).default(200).describe('tokens to draw, at most'),
  temperature: z.number().min(0).default(1).describe('divides the scores; 0 takes the highest'),
  top_k: z.int().min(1).optional().describe('draw from the k highest scores'),
  top_p: z
    .number()
    .positive()
    .max(1)
    .default(0.9)
    .describe('a token stays while the mass before it is at most p'),
  repetition_penalty: z
    .number()
    .positive()
    .default(1)
    .describe('lowers the scores of tokens of the context'),
  seed: z.int().min(0).optional().describe('seed of the draws (default: drawn, and reported)'),
  stop: z.array(z.string().min(1)).default([]).describe('text that ends the output; repeatable'),
  rolling_cache: z
    .boolean()
    .default(false)
    .describe('keep the cache when the context is full: faster, not the same'),
  no_echo: z.boolean().default(false).describe('leave the prompt out of the output'),
  device: trainFields.device,
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe("arithmetic of the matrix products (default: the run's)"),
  threads: z.int().min(1).optional().describe('threads of the CPU engine'),
}

const EXAMPLES = `
Examples:
  kindling generate --run runs/book --prompt "It was" --temperature 0.8
  kindling generate --run runs/book --prompt "He said" --prompt "She said" --max-tokens 50 --json`

export function generateCommand(): Command {
  const command = new Command('generate').description('text from a trained model')
  const { prompt, stop, no_echo, ...plain } = fields
  command.option('--prompt <text>', prompt.description!, append)
  addFields(command, plain)
  command.option('--stop <text>', stop.description!, append)
  command.option('--no-echo', no_echo.description!).addHelpText('after', EXAMPLES)
  return command.action(
    run(async ({ echo, ...flags }, output) => {
      const options = parse(z.strictObject(fields), { ...flags, no_echo: echo === false })
      const { model, tokenizer } = await loadRun(options)
      if (!tokenizer)
        throw new KindlingError(
          'ERR_NOT_FOUND',
          'the run has no tokenizer, so no text can be read or written',
        )
      await withInterrupt(async (signal) => {
        const drawing: GenerateOptions = {
          maxTokens: options.max_tokens,
          temperature: options.temperature,
          ...(options.top_k === undefined ? {} : { topK: options.top_k }),
          topP: options.top_p,
          repetitionPenalty: options.repetition_penalty,
          ...(options.seed === undefined ? {} : { seed: options.seed }),
          stop: options.stop,
          rollingCache: options.rolling_cache,
          echo: !options.no_echo,
          signal,
        }
        const started = performance.now()
        const results =
          options.prompt.length === 1 && !output.json
            ? [await stream(generate(model, tokenizer, options.prompt[0]!, drawing), output)]
            : await generateBatch(model, tokenizer, options.prompt, drawing)
        report(results, (performance.now() - started) / 1000, output, options.prompt.length > 1)
      })
    }),
  )
}

function append(text: string, before: unknown): string[] {
  return [...(Array.isArray(before) ? (before as string[]) : []), text]
}

/** Writes a text as it comes. */
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

function report(results: GenerateResult[], seconds: number, output: Output, batch: boolean): void {
  const drawn = results.reduce((sum, result) => sum + result.ids.length, 0)
  const tokensPerSecond = Number((drawn / seconds).toFixed(1))
  for (const [row, { prompt, text, ids, stopReason, seed }] of results.entries()) {
    if (batch) output.text(`${row === 0 ? '' : '\n'}--- ${row + 1}\n${text}`)
    output.line({
      prompt,
      text,
      ids: [...ids],
      stop_reason: stopReason,
      tokens_per_second: tokensPerSecond,
      seed,
    })
  }
  if (!output.json) output.note(`seed ${results[0]!.seed}, ${tokensPerSecond} tokens/s`)
}
