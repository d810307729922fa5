/** Flags from a schema: the name in kebab-case, the argument from the type, the description and default in the help. */
import { type Command, Option } from 'commander'
import type { z } from 'zod'

/** Fields of a schema, by their snake_case names. */
export type Fields = Readonly<Record<string, z.ZodType>>

interface Kind {
  type: string
  element?: string
  choices?: string[]
  defaultValue?: unknown
}

/** Adds a flag for each field. Values that the user does not give stay undefined, so that their source is known. */
export function addFields(command: Command, fields: Fields): Command {
  for (const [name, field] of Object.entries(fields)) command.addOption(optionOf(name, field))
  return addJson(command)
}

/** Adds `--json`. */
export function addJson(command: Command): Command {
  return command.option('--json', 'print JSON lines on stdout, all else on stderr')
}

function optionOf(name: string, field: z.ZodType): Option {
  const kind = kindOf(field)
  const flag = `--${name.replaceAll('_', '-')}`
  const shown =
    kind.defaultValue === undefined ||
    kind.defaultValue === false ||
    /\(default/.test(field.description ?? '')
      ? ''
      : ` (default: ${[kind.defaultValue].flat().join(' ')})`
  const description = `${field.description ?? ''}${shown}`
  if (kind.type === 'boolean') return new Option(flag, description)
  if (kind.type === 'array') {
    const option = new Option(`${flag} <${placeholder(kind.element)}...>`, description)
    return kind.element === 'number' ? option.argParser(appendNumber) : option
  }
  const option = new Option(`${flag} <${placeholder(kind.type)}>`, description)
  return kind.type === 'number' || kind.type === 'int' ? option.argParser(toNumber) : option
}

function placeholder(type: string | undefined): string {
  return type === 'number' ? 'n' : type === 'enum' ? 'name' : 'text'
}

/** Anything but a number stays text, which the schema then names as wrong. */
function toNumber(text: string): unknown {
  const value = Number(text)
  return text.trim() === '' || Number.isNaN(value) ? text : value
}

function appendNumber(text: string, before: unknown): unknown[] {
  return [...(Array.isArray(before) ? (before as unknown[]) : []), toNumber(text)]
}

/** The base type of a field under its default and optional wrappers. */
function kindOf(field: z.ZodType): Kind {
  const def = field._zod.def as unknown as {
    type: string
    innerType?: z.ZodType
    element?: z.ZodType
    defaultValue?: unknown
  }
  if (def.innerType) {
    const inner = kindOf(def.innerType)
    return def.type === 'default' ? { ...inner, defaultValue: def.defaultValue } : inner
  }
  if (def.type === 'array' && def.element)
    return { type: 'array', element: kindOf(def.element).type }
  return { type: def.type }
}

/** `--d_model` is `--d-model`: underscores in the names of flags, as the course writes them. */
export function withHyphens(argv: readonly string[]): string[] {
  const end = argv.indexOf('--')
  return argv.map((word, i) => {
    if ((end >= 0 && i > end) || !/^--[a-z]/.test(word)) return word
    const [name = '', ...value] = word.split('=')
    return [name.replaceAll('_', '-'), ...value].join('=')
  })
}
