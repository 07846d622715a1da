/** Runs a kit's code for Android, and its test on the device, on fakes of Android and the real LiteRT. */
package cases

import androidx.test.platform.app.InstrumentationRegistry
import com.example.fruit.Classifier
import com.example.fruit.DeviceTest
import com.google.ai.edge.litert.Accelerator
import java.io.File

/** Prints what each part gives. Arguments: pictures. */
fun main(arguments: Array<String>) {
    println(outcome { DeviceTest().cpu() })
    println(outcome { DeviceTest().gpu() })
    val context = InstrumentationRegistry.getInstrumentation().targetContext
    println(outcome { Classifier.open(context, Accelerator.NPU) })
    Classifier.open(context).use { classifier ->
        println(outcome { classifier.scores(ByteArray(5)) })
        println(outcome { classifier.classify(ByteArray(5)) })
        for (path in arguments) {
            val answers = classifier.classify(File(path))
            println(answers.joinToString("\t") { "${it.number} ${it.label} ${it.score} ${it.probability}" })
        }
    }
    val release = System.getProperty("release") ?: return
    Classifier.open(context, File(release)).use { classifier ->
        println("${classifier.contract.temperature} " + classifier.classify(File(arguments[0])).first().label)
    }
}

private fun outcome(action: () -> Any): String = try {
    "done: ${action()}"
} catch (failed: RuntimeException) {
    "${failed.message}"
}
