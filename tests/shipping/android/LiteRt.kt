/**
 * Stand-ins for the part of LiteRT that a kit uses: its signatures at the tag v2.2.0, of our own, none of its source.
 *
 * Behind them the model runs in another process: the program `litert` (a property) is started with the model's path,
 * says how many scores there are, and answers each input with them, as runtime.py does.
 */
package com.google.ai.edge.litert

import android.content.Context
import android.content.res.AssetManager
import java.io.DataInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

enum class Accelerator { NONE, CPU, GPU, NPU }

class TensorBuffer internal constructor() : AutoCloseable {
    internal var bytes = ByteArray(0)

    fun writeInt8(data: ByteArray) {
        bytes = data
    }

    fun writeFloat(data: FloatArray) {
        val buffer = ByteBuffer.allocate(4 * data.size).order(ByteOrder.LITTLE_ENDIAN)
        data.forEach { buffer.putFloat(it) }
        bytes = buffer.array()
    }

    fun readFloat(): FloatArray {
        val floats = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(bytes.size / 4) { floats.get(it) }
    }

    override fun close() = Unit
}

class Environment private constructor() : AutoCloseable {
    enum class Option { CompilerPluginLibraryDir, DispatchLibraryDir }

    fun getAvailableAccelerators(): Set<Accelerator> = setOf(Accelerator.CPU)

    override fun close() = Unit

    companion object {
        fun create(
            context: Context,
            options: Map<Option, String> = mapOf(),
            enableCompilerCache: Boolean = true,
        ): Environment = Environment().also { check("$context$options$enableCompilerCache" != "") }
    }
}

class CompiledModel private constructor(path: String) : AutoCloseable {
    class Options(vararg accelerators: Accelerator) {
        internal val given = accelerators.toSet()
    }

    private val process = ProcessBuilder(System.getProperty("litert").split("\t") + path)
        .redirectError(ProcessBuilder.Redirect.INHERIT).start()
    private val answers = DataInputStream(process.inputStream)
    private val length = answers.readInt()

    fun createInputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = List(1 + signatureIndex) { TensorBuffer() }

    fun createOutputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = List(1 + signatureIndex) { TensorBuffer() }

    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signatureIndex: Int = 0) {
        process.outputStream.write(inputs[signatureIndex].bytes)
        process.outputStream.flush()
        outputs[signatureIndex].bytes = ByteArray(length).also { answers.readFully(it) }
    }

    override fun close() = process.destroy()

    companion object {
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options,
            optionalEnv: Environment? = null,
        ): CompiledModel {
            check(options.given == setOf(Accelerator.CPU) && optionalEnv != null && "$assetManager" != "")
            return CompiledModel("${System.getProperty("assets")}/$assetName")
        }

        fun create(filePath: String, options: Options, optionalEnv: Environment? = null): CompiledModel {
            check(options.given == setOf(Accelerator.CPU) && optionalEnv != null)
            return CompiledModel(filePath)
        }
    }
}
