/** Stand-ins for the part of JUnit 4.13 that a kit's tests use; see LiteRt.kt. */
package org.junit

annotation class Test

object Assert {
    @JvmStatic fun assertEquals(expected: Any?, actual: Any?) = check(expected == actual) { "$actual" }
}

object Assume {
    @JvmStatic fun assumeTrue(message: String, condition: Boolean) = check(condition) { message }
}
