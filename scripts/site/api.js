/**
 * The reference of the library, written by typedoc from the comments in src/.
 */
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

/** Returns typedoc's flags for a reference in the folder `out`. */
function typedocFlags(out) {
  return [
    ...['--tsconfig', path.join(root, 'tsconfig.json')],
    ...['--basePath', root, '--out', out, '--readme', 'none', '--name', 'Library'],
    ...[
      '--plugin',
      'typedoc-plugin-markdown',
      '--entryFileName',
      'index',
      '--fileExtension',
      '.md',
    ],
    ...['--hidePageHeader', '--hideBreadcrumbs', '--disableSources', '--excludeInternal'],
    ...['--excludePrivate', '--excludeExternals', '--sort', 'source-order', '--useCodeBlocks'],
    ...['--parametersFormat', 'table', '--interfacePropertiesFormat', 'table'],
    ...['--typeDeclarationFormat', 'table', '--enumMembersFormat', 'table'],
    ...[
      '--validation.notDocumented',
      '--validation.invalidLink',
      '--validation.notExported',
      'false',
    ],
    '--treatValidationWarningsAsErrors',
    path.join(root, 'src', 'index.ts'),
  ]
}

module.exports = { typedocFlags }
