/**
 * Checks the comments of the public API: every name that src/index.ts exports, every option, member
 * and method has a description; a number says what it counts or in what unit; an exported function
 * names the errors it throws. Options of a run are described in their schema, for --help as well.
 */
const path = require('node:path')
const ts = require('typescript')

const root = path.join(__dirname, '..', '..')
const entry = path.join(root, 'src', 'index.ts')

/** A number is a count of something, has a unit, or is one of these. */
const MEASURE = new RegExp(
  '\\b(numbers?|tokens?|bytes?|MiB|GiB|TFLOP/s|FLOPs|seconds?|milliseconds|nats|bits|steps?|updates?|' +
    'batch(es)?|windows?|rows?|sequences?|heads?|blocks?|threads|checkpoints?|vocabulary size|' +
    'occurrences|merges?|width|index|position|seed|fraction|factor|divisor|divides|divided|' +
    'decay|rates?|norm|context|weights|base|added to|exp\\(|version|turns|probability|most likely)\\b',
  'i',
)
/** Functions that cannot fail, other than for arguments of a wrong type. */
const NEVER_FAIL = new Set(['flopsPerToken', 'availableThreads', 'instructionSet', 'peakRssMib'])

function openProgram() {
  const { config } = ts.readConfigFile(path.join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const program = ts.createProgram([entry], options)
  return { checker: program.getTypeChecker(), file: program.getSourceFile(entry) }
}

const { checker, file } = openProgram()
const problems = []
let described = 0

const textOf = (symbol) => ts.displayPartsToString(symbol.getDocumentationComment(checker))
const isOurs = (node) => node && node.getSourceFile().fileName.startsWith(path.join(root, 'src'))

/** Members that are not shown to users: private names, `@internal`, well-known symbols. */
function isHidden(symbol) {
  const node = symbol.valueDeclaration ?? symbol.declarations?.[0]
  const isPrivate = node?.name !== undefined && ts.isPrivateIdentifier(node.name)
  const isInternal = symbol.getJsDocTags(checker).some(({ name }) => name === 'internal')
  return !isOurs(node) || isPrivate || isInternal || symbol.name === 'prototype'
}

function checkMember(owner, symbol) {
  const node = symbol.valueDeclaration ?? symbol.declarations[0]
  const name = `${owner}.${symbol.name}`
  const text = textOf(symbol)
  described++
  if (text === '') problems.push(`${name} has no description`)
  const type = checker.getNonNullableType(checker.getTypeOfSymbolAtLocation(symbol, node))
  const isNumber = (type.flags & ts.TypeFlags.Number) !== 0
  if (text !== '' && isNumber && !MEASURE.test(text)) {
    problems.push(`${name} is a number without a unit: ${text}`)
  }
}

/** Returns the properties of a name: of its type, and of what a class makes. */
function membersOf(symbol) {
  const types = []
  if (symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Interface)) {
    types.push(checker.getDeclaredTypeOfSymbol(symbol))
  }
  if (symbol.flags & (ts.SymbolFlags.Class | ts.SymbolFlags.Variable)) {
    types.push(checker.getTypeOfSymbolAtLocation(symbol, symbol.valueDeclaration))
  }
  return new Set(types.flatMap((type) => type.getProperties()))
}

function checkName(exported) {
  const symbol =
    exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
  described++
  if (textOf(symbol) === '') problems.push(`${symbol.name} has no description`)
  const tags = symbol.getJsDocTags(checker).map(({ name }) => name)
  const isFunction = (symbol.flags & ts.SymbolFlags.Function) !== 0
  if (isFunction && !tags.includes('throws') && !NEVER_FAIL.has(symbol.name)) {
    problems.push(`${symbol.name} does not say what it throws`)
  }
  for (const member of membersOf(symbol)) if (!isHidden(member)) checkMember(symbol.name, member)
}

for (const exported of checker.getExportsOfModule(checker.getSymbolAtLocation(file))) {
  checkName(exported)
}
process.stdout.write(
  problems.length > 0 ? `${problems.join('\n')}\n` : `${described} names are described\n`,
)
process.exitCode = problems.length > 0 ? 1 : 0
