/** Runs the golden test of a copy of a kit's code once for each mistake that a test put into it. */
package cases

import mistakes.mistake

/** Arguments: the folder of the golden set, and names of mistakes, of which "" is none. */
fun main(arguments: Array<String>) {
    for (name in arguments.drop(1)) {
        mistake = name
        mistakes.main(arrayOf(arguments[0]))
    }
}
