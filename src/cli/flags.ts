/** Makes command-line flags from zod schemas: names, placeholders, descriptions and defaults. */
import { type Command, Option } from 'commander'
import { z } from 'zod'
import { addVerbosity, showCommonFirst } from './help'

/** The options of a command, by their snake_case names. */
export type Fields = Readonly<Record<string, z.ZodType>>

/**
 * The keywords of JSON Schema that make up a flag. Some come from a field's `.meta()`: `value` is
 * the placeholder, as in `--config <file>`; `repeat` makes a list take one value per flag; `group`
 * is its heading in the help; `common` shows it in the short help of a command that has one.
 */
interface FieldSchema {
  type?: string
  description?: string
  default?: unknown
  enum?: string[]
  items?: FieldSchema
  /** A value or a list of values. */
  anyOf?: FieldSchema[]
  value?: string
  repeat?: boolean
  group?: string
  common?: boolean
}

/** Longest list of choices that is shown as a flag's placeholder. */
const MAX_CHOICES_WIDTH = 20

/**
 * Adds one flag per field, and `--json`.
 *
 * Flags take no default from the schema: one that the user leaves out stays undefined, so that a
 * config file or a preset can set it.
 *
 * @param hideRest - show only the fields marked `common` in `--help`, and all of them in
 * `--help-all`.
 */
export function addFields(
  command: Command,
  fields: Fields,
  { hideRest = false }: { hideRest?: boolean } = {},
): Command {
  const { properties = {} } = jsonSchemaOf(fields)
  const common = new Set<string>()
  for (const [name, property] of Object.entries(properties)) {
    const schema = property as FieldSchema
    for (const option of optionsOf(name, schema)) {
      if (schema.group !== undefined) option.helpGroup(`${schema.group}:`)
      if (schema.common) common.add(option.attributeName())
      command.addOption(option)
    }
  }
  if (hideRest) showCommonFirst(command, common)
  return addVerbosity(command)
}

/** Returns the JSON Schema of an object with these fields, as a config file holds it. */
export function jsonSchemaOf(fields: Fields): z.core.JSONSchema.BaseSchema {
  return z.toJSONSchema(z.strictObject(fields), { io: 'input' })
}

/** Returns the flag of a field. A boolean without a default has two, to turn it on and off. */
function optionsOf(name: string, schema: FieldSchema): Option[] {
  const flag = `--${name.replaceAll('_', '-')}`
  const off = flag.replace('--', '--no-')
  if (schema.type !== 'boolean') {
    const option = optionOf(flag, schema)
    // Only for shell completion; the schema checks the value.
    const choices = schema.enum ?? schema.items?.enum
    if (choices) option.argChoices = choices
    return [option]
  }
  const description = describe(schema)
  if (schema.default !== undefined) return [new Option(schema.default ? off : flag, description)]
  return [new Option(flag, description), new Option(off, `the opposite of ${flag}`)]
}

function optionOf(flag: string, schema: FieldSchema): Option {
  const description = describe(schema)
  const list = schema.anyOf?.find(({ type }) => type === 'array')
  const { type, items, repeat } = list ? { ...schema, ...list } : schema
  if (type === 'array') {
    const kind = placeholder({ ...(list && schema), ...items })
    if (repeat) return new Option(`${flag} <${kind}>`, description).argParser(append)
    const option = new Option(`${flag} <${kind}...>`, description)
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
  const oneOf = isListed ? '' : ` (one of ${choices.join(', ')})`
  const hasDefault = value !== undefined && typeof value !== 'boolean'
  const list = [value].flat().join(' ')
  const shown =
    hasDefault && list !== '' && !description.includes('(default') ? ` (default: ${list})` : ''
  return `${description}${oneOf}${shown}`
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

/** Leaves anything but a number as text, which the schema then rejects, naming the option. */
function toNumber(text: string): unknown {
  const value = Number(text)
  return text.trim() === '' || Number.isNaN(value) ? text : value
}

function append(value: unknown, previous: unknown): unknown[] {
  return [...(Array.isArray(previous) ? (previous as unknown[]) : []), value]
}

function appendNumber(text: string, previous: unknown): unknown[] {
  return append(toNumber(text), previous)
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
