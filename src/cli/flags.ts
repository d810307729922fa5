/** Makes command-line flags from zod schemas: names, placeholders, descriptions and defaults. */
import { type Command, Option } from 'commander'
import { z } from 'zod'

/** The options of a command, by their snake_case names. */
export type Fields = Readonly<Record<string, z.ZodType>>

/**
 * The keywords of JSON Schema that make up a flag. `value` comes from a field's `.meta({ value:
 * 'file' })`.
 */
interface FieldSchema {
  type?: string
  description?: string
  default?: unknown
  enum?: string[]
  items?: FieldSchema
  value?: string
}

/** Longest list of choices that is shown as a flag's placeholder. */
const MAX_CHOICES_WIDTH = 20

/**
 * Adds one flag per field, and `--json`.
 *
 * Flags take no default from the schema: one that the user leaves out stays undefined, so that a
 * config file or a preset can set it.
 */
export function addFields(command: Command, fields: Fields): Command {
  const { properties = {} } = jsonSchemaOf(fields)
  for (const [name, schema] of Object.entries(properties)) {
    command.addOption(optionOf(name, schema as FieldSchema))
  }
  return addJson(command)
}

/** Adds `--json`. */
export function addJson(command: Command): Command {
  return command.option('--json', 'print JSON lines to stdout and everything else to stderr')
}

/** Returns the JSON Schema of an object with these fields, as a config file holds it. */
export function jsonSchemaOf(fields: Fields): z.core.JSONSchema.BaseSchema {
  return z.toJSONSchema(z.strictObject(fields), { io: 'input' })
}

function optionOf(name: string, schema: FieldSchema): Option {
  const flag = `--${name.replaceAll('_', '-')}`
  const description = describe(schema)
  const { type, items } = schema
  if (type === 'boolean') return new Option(flag, description)
  if (type === 'array') {
    const option = new Option(`${flag} <${placeholder(items ?? {})}...>`, description)
    return isNumeric(items?.type) ? option.argParser(appendNumber) : option
  }
  const option = new Option(`${flag} <${placeholder(schema)}>`, description)
  return isNumeric(type) ? option.argParser(toNumber) : option
}

/** Returns the description, followed by whichever of choices and default it does not mention. */
function describe(schema: FieldSchema): string {
  const { description = '', default: value, enum: choices = [] } = schema
  const isListed =
    placeholder(schema) === choices.join('|') || choices.every((name) => description.includes(name))
  const list = isListed ? '' : ` (one of ${choices.join(', ')})`
  const hasDefault = value !== undefined && value !== false && !description.includes('(default')
  const shown = hasDefault ? ` (default: ${[value].flat().join(' ')})` : ''
  return `${description}${list}${shown}`
}

function placeholder({ type, value, enum: choices }: FieldSchema): string {
  if (value !== undefined) return value
  if (choices) {
    const list = choices.join('|')
    return list.length <= MAX_CHOICES_WIDTH ? list : 'name'
  }
  return isNumeric(type) ? 'n' : 'text'
}

function isNumeric(type: string | undefined): boolean {
  return type === 'number' || type === 'integer'
}

/** Leaves anything but a number as text, which the schema then rejects by name. */
function toNumber(text: string): unknown {
  const value = Number(text)
  return text.trim() === '' || Number.isNaN(value) ? text : value
}

function appendNumber(text: string, previous: unknown): unknown[] {
  return [...(Array.isArray(previous) ? (previous as unknown[]) : []), toNumber(text)]
}

/** Lets flags be written with underscores: `--d_model` becomes `--d-model`. */
export function withHyphens(argv: readonly string[]): string[] {
  const end = argv.indexOf('--')
  return argv.map((word, i) => {
    if ((end >= 0 && i > end) || !/^--[a-z]/.test(word)) return word
    const [name = '', ...value] = word.split('=')
    return [name.replaceAll('_', '-'), ...value].join('=')
  })
}
