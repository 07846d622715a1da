/**
 * Stand-ins for the part of LiteRT that a kit uses: its signatures at the tag v2.2.0, with nothing behind them.
 *
 * Written for these tests; none is a copy of its source.
 */
package com.google.ai.edge.litert

import android.content.Context
import android.content.res.AssetManager

enum class Accelerator { NONE, CPU, GPU, NPU }

class TensorBuffer internal constructor() : AutoCloseable {
    fun writeInt8(data: ByteArray): Unit = TODO("$data")
    fun writeFloat(data: FloatArray): Unit = TODO("$data")
    fun readFloat(): FloatArray = TODO()
    override fun close() = Unit
}

class Environment private constructor() : AutoCloseable {
    enum class Option { CompilerPluginLibraryDir, DispatchLibraryDir }

    fun getAvailableAccelerators(): Set<Accelerator> = TODO()
    override fun close() = Unit

    companion object {
        fun create(
            context: Context,
            options: Map<Option, String> = mapOf(),
            enableCompilerCache: Boolean = true,
        ): Environment = TODO("$context $options $enableCompilerCache")
    }
}

class CompiledModel private constructor() : AutoCloseable {
    class Options(vararg accelerators: Accelerator) {
        val given = accelerators.toSet()
    }

    fun createInputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = TODO("$signatureIndex")
    fun createOutputBuffers(signatureIndex: Int = 0): List<TensorBuffer> = TODO("$signatureIndex")
    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signatureIndex: Int = 0): Unit =
        TODO("$inputs $outputs $signatureIndex")

    override fun close() = Unit

    companion object {
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options,
            optionalEnv: Environment? = null,
        ): CompiledModel = TODO("$assetManager $assetName $options $optionalEnv")
    }
}
