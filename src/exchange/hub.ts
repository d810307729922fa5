/** Models of Hugging Face's hub, `hf:org/name`, through the optional package @huggingface/hub. */
import { KindlingError } from '../errors'

const PREFIX = 'hf:'

/** The part of @huggingface/hub that is used here. */
interface Hub {
  snapshotDownload: (options: { repo: string; revision?: string }) => Promise<string>
}

/**
 * Returns the path of a model on this machine: of `hf:org/name` or `hf:org/name@revision`, the
 * folder that @huggingface/hub downloads it to; of any other source, the source itself.
 *
 * @throws KindlingError `ERR_UNSUPPORTED` if the package is not installed, `ERR_NOT_FOUND` if the
 * hub has no such model or cannot be reached.
 */
export async function localPath(source: string): Promise<string> {
  if (!source.startsWith(PREFIX)) return source
  const [repo = '', revision] = source.slice(PREFIX.length).split('@')
  if (!/^[\w.-]+\/[\w.-]+$/.test(repo)) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', `${source} is not of the form hf:org/name`)
  }
  const hub = loadHub()
  try {
    return await hub.snapshotDownload({ repo, ...(revision !== undefined && { revision }) })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new KindlingError(
      'ERR_NOT_FOUND',
      `cannot download ${source}: ${reason}; check the name and the network`,
      { cause: error },
    )
  }
}

function loadHub(): Hub {
  try {
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    return require('@huggingface/hub') as Hub
  } catch (error) {
    throw new KindlingError(
      'ERR_UNSUPPORTED',
      'hf: sources need the package @huggingface/hub; run npm install @huggingface/hub, or ' +
        'download the model and give its folder',
      { cause: error },
    )
  }
}
