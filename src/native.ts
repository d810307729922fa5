/** The one place that loads the addon. `index.js` at the root of the package is the loader napi generates. */
import * as native from '../index'

export { native }
