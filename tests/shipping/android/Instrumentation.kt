/** Stand-in for the part of androidx.test 1.7 that a kit's tests use; see LiteRt.kt. */
package androidx.test.platform.app

import android.app.Instrumentation

object InstrumentationRegistry {
    @JvmStatic fun getInstrumentation(): Instrumentation = Instrumentation()
}
