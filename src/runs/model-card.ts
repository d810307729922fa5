/** The README.md of an exported model: what it is, what it was trained on, and how. */
import { basename, dirname, join, resolve } from 'node:path'
import { runOfSource, type LoadedModel } from '../training/model-source'
import type { RunConfig } from '../training/run-config'
import { RunFolder } from '../training/run-folder'
import { repeatCommand } from './command'

/** Returns the text for the model of a run, or of another source. */
export async function modelCard(source: string, loaded: LoadedModel): Promise<string> {
  const { model, config, step } = loaded
  const { dModel, numLayers, numHeads, maxSeqLength, vocabSize } = config.options
  const facts = [
    `- ${model.numParameters} parameters: ${numLayers} blocks of width ${dModel}, ` +
      `${numHeads} heads, vocabulary ${vocabSize}, context ${maxSeqLength}`,
  ]
  if (config.options.from !== undefined) facts.push(`- started from \`${config.options.from}\``)
  if (config.totalSteps > 0) facts.push(...trainingFacts(source, config, step))
  return [
    '---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- kindling\n---\n',
    `# ${basename(resolve(runOfSource(source)))}\n`,
    'Made with [Kindling](https://www.npmjs.com/package/kindling).\n',
    `${facts.join('\n')}\n`,
  ].join('\n')
}

/** Data, steps, losses and the command. */
function trainingFacts(source: string, config: RunConfig, step: number): string[] {
  const { batchSize, seqLength, accumulate } = config.options
  const tokens = step * batchSize * seqLength * accumulate
  const data = config.data.train.map(({ path }, i) => {
    const length = config.identity?.train[i]?.length
    const name = `\`${shortPath(path)}\``
    return length === undefined ? name : `${name} (${length} tokens)`
  })
  const metrics = new RunFolder(runOfSource(source)).readMetrics().filter((m) => m.step <= step)
  const loss = metrics.at(-1)?.loss
  const valLoss = metrics.findLast((line) => line.valLoss !== undefined)?.valLoss
  return [
    `- data: ${data.join(', ')}`,
    `- step ${step} of ${config.totalSteps}, ${tokens} tokens`,
    ...(loss === undefined ? [] : [`- training loss ${loss.toFixed(4)}`]),
    ...(valLoss === undefined ? [] : [`- validation loss ${valLoss.toFixed(4)}`]),
    `\n\`\`\`sh\n${repeatCommand(config)}\n\`\`\``,
  ]
}

/**
 * Returns the last two components of a path: the folders above mean nothing to readers of the card.
 */
function shortPath(path: string): string {
  return join(basename(dirname(path)), basename(path))
}
