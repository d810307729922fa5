/** Flags made from a schema: how the help shows them, and which values they return. */
import test from 'ava'
import { Command } from 'commander'
import { z } from 'zod'
import { layOutHelp } from '../src/cli/help'
import { withFlagNames } from '../src/cli/output'
import { addFields, jsonSchemaOf, withHyphens, type Fields } from '../src/cli/flags'

function command(fields: Fields): Command {
  const test = addFields(new Command('test').exitOverride(), fields)
  layOutHelp(test)
  return test
}

/** Returns the lines of the help that describe flags. */
function help(fields: Fields): string[] {
  const text = command(fields).configureHelp({ helpWidth: 200 }).helpInformation()
  return text.split('\n').filter((line) => /^ +--(?!json)/.test(line))
}

function values(fields: Fields, argv: string): Record<string, unknown> {
  return command(fields).parse(argv.split(' '), { from: 'user' }).opts()
}

test('a short list of choices is the placeholder, a long one ends the description', (t) => {
  const long = ['random', 'epoch', 'sequential', 'dense'] as const
  t.deepEqual(
    help({
      dtype: z.enum(['f32', 'bf16']).default('f32').describe('precision'),
      sampling: z.enum(long).default('random').describe('order'),
    }).map((line) => line.trim().replace(/ {2,}/, '  ')),
    [
      '--dtype <f32|bf16>  precision (default: f32)',
      '--sampling <name>  order (one of random, epoch, sequential, dense) (default: random)',
    ],
  )
})

test('the kind of a value comes from the metadata of its field, or of its items', (t) => {
  const [file, dirs, number, text] = help({
    file: z.string().meta({ value: 'file' }).optional().describe('a'),
    dirs: z.array(z.string().meta({ value: 'dir' })),
    number: z.int().optional(),
    text: z.string(),
  })
  t.regex(file!, /--file <file> /)
  t.regex(dirs!, /--dirs <dir\.\.\.>/)
  t.regex(number!, /--number <n>/)
  t.regex(text!, /--text <text>/)
})

test('flags that are left out stay undefined, whatever their default', (t) => {
  const fields = {
    rate: z.number().default(1),
    names: z.array(z.string()).default(['a']),
    on: z.boolean().default(false),
  }
  t.deepEqual(values(fields, '--on'), { on: true })
  t.deepEqual(jsonSchemaOf(fields).properties!['rate'], { default: 1, type: 'number' })
})

test('numbers are parsed, and text in their place is left to the schema', (t) => {
  const fields = { rate: z.number(), betas: z.array(z.number()) }
  t.deepEqual(values(fields, '--rate 1e-3 --betas 0.9 -1'), { rate: 1e-3, betas: [0.9, -1] })
  t.deepEqual(values(fields, '--rate much'), { rate: 'much' })
})

test('a repeatable flag takes one value each time', (t) => {
  const fields = { prompt: z.array(z.string()).meta({ repeat: true }).default(['']) }
  t.regex(help(fields)[0]!, /--prompt <text>$/)
  t.deepEqual(values(fields, '--prompt a --prompt b'), { prompt: ['a', 'b'] })
})

test('an option that is on by default gets a flag to turn it off', (t) => {
  const fields = { echo: z.boolean().default(true).describe('leave the prompt out') }
  t.regex(help(fields)[0]!, /--no-echo +leave the prompt out$/)
  t.deepEqual(values(fields, '--no-echo'), { echo: false })
})

test('flags may be written with underscores, their values are left alone', (t) => {
  t.deepEqual(withHyphens(['--d_model=1_0', '--text', 'a_b', '--', '--c_d']), [
    '--d-model=1_0',
    '--text',
    'a_b',
    '--',
    '--c_d',
  ])
})

test('messages name options as the flags of the command', (t) => {
  const command = new Command('train')
    .option('--vocab-size <n>', '')
    .option('--lr <n>', '')
    .option('--no-echo', '')
  const reword = (message: string) => withFlagNames(message, command)
  t.is(reword('vocabSize is 3'), '--vocab-size is 3')
  t.is(reword('lower vocab_size, or see vocab_sizes'), 'lower --vocab-size, or see vocab_sizes')
  t.is(
    reword('lr must be a number; vocab_size must be'),
    '--lr must be a number; --vocab-size must be',
  )
  t.is(reword('lr.1 must be a number'), '--lr must be a number')
  t.is(reword('cannot read data/vocab_size.txt or lr'), 'cannot read data/vocab_size.txt or lr')
})
