/** Runs a kit's pixel code on cases that a test writes, and writes what it gives. */
package cases

import com.example.fruit.Contract
import com.example.fruit.Geometry
import com.example.fruit.Input
import com.example.fruit.Kernel
import com.example.fruit.Picture
import com.example.fruit.Plane
import com.example.fruit.YuvMatrix
import com.example.fruit.checked
import com.example.fruit.fit
import com.example.fruit.labels
import com.example.fruit.noise
import com.example.fruit.orientation
import com.example.fruit.probabilities
import com.example.fruit.toBytes
import com.example.fruit.toFloats
import java.io.DataOutputStream
import java.io.File
import java.nio.ByteBuffer

private val PLAIN = listOf("", "WHOLE", "BICUBIC", "32", "32", "0")

/** Arguments: a file with a case a line, its fields with tabs between; the file of the answers, each after its length. */
fun main(arguments: Array<String>) {
    DataOutputStream(File(arguments[1]).outputStream().buffered()).use { out ->
        for (line in File(arguments[0]).readLines()) {
            val answer = try {
                answer(line.split("\t"))
            } catch (refused: RuntimeException) {
                "${refused.message}".toByteArray()
            }
            out.writeInt(answer.size)
            out.write(answer)
        }
    }
}

private fun answer(fields: List<String>): ByteArray {
    val numbers = fields.mapNotNull { it.toIntOrNull() }
    return when (fields[0]) {
        "fit" -> fit(rgb(numbers[2], numbers[3], numbers[4]), contract(fields))
        "wrong" -> fit(Picture.rgb(ByteArray(numbers[0]), numbers[1], numbers[2]), contract(PLAIN))
        "orientation" -> byteArrayOf(orientation(File(fields[1]).readBytes()).toByte())
        "upright" -> bytes(rgb(numbers[1], numbers[2], numbers[3]).upright(numbers[0]))
        "rotated" -> bytes(rgb(numbers[1], numbers[2], numbers[3]).rotated(numbers[0]))
        "over" -> bytes(argb(numbers[0], numbers[1], numbers[2]).over(fields[4].toLong(16).toInt()))
        "rgba" -> {
            val (width, height, stride, length, degrees) = numbers
            val plane = Plane(ByteBuffer.wrap(noise(1, length, 1).copyOf(length)), stride, 4)
            bytes(Picture.rgba(plane, width, height).rotated(degrees))
        }
        "yuv" -> {
            val (width, height, stride, chromaStride, chromaStep) = numbers
            val y = Plane(part(numbers[5], 1), stride, 1)
            val u = Plane(part(numbers[6], 2), chromaStride, chromaStep)
            val v = Plane(part(numbers[6], 3), chromaStride, chromaStep)
            bytes(Picture.yuv(y, u, v, width, height, YuvMatrix.valueOf(fields[1])).rotated(numbers[7]))
        }
        "tensor" -> {
            val given = contract(fields)
            val square = noise(given.size, given.size, 5)
            val floats = toFloats(square, given)
            if (given.input != Input.FLOAT32) toBytes(square, given) else
                ByteBuffer.allocate(4 * floats.size).also { buffer -> floats.forEach { buffer.putFloat(it) } }.array()
        }
        "golden" -> checked(contract(fields)) { File(fields.last(), it).readBytes() }
            .joinToString("\n") { "${it.checked} ${it.skipped}${it.text}" }.toByteArray()
        "softmax" -> {
            val scores = fields.drop(2).map { it.toFloat() }.toFloatArray()
            probabilities(scores, fields[1].toDouble()).joinToString(" ").toByteArray()
        }
        "labels" -> labels(File(fields[1]).readBytes(), contract(PLAIN, fields[2])).joinToString("\n").toByteArray()
        else -> error(fields[0])
    }
}

private fun contract(fields: List<String>, hash: String = "") = Contract(
    geometry = Geometry.valueOf(fields[1]),
    kernel = Kernel.valueOf(fields[2]),
    size = fields[3].toInt(),
    resizeSize = fields[4].toInt(),
    background = fields[5].toLong(16).toInt(),
    input = Input.entries.firstOrNull { it.name in fields } ?: Input.UINT8,
    channelsFirst = "NCHW" in fields,
    mean = listOf(0.485, 0.456, 0.406),
    std = listOf(0.229, 0.224, 0.225),
    temperature = 1.0,
    labelsSha256 = hash,
)

private fun rgb(width: Int, height: Int, seed: Int) = Picture.rgb(noise(width, height, seed), width, height)

private fun argb(width: Int, height: Int, seed: Int): Picture {
    val bytes = ByteBuffer.wrap(noise(4 * width, height, seed))
    return Picture(width, height) { x, y, w, h, into ->
        for (i in 0 until w * h) into[i] = bytes.getInt(4 * ((y + i / w) * width + x + i % w))
    }
}

private fun part(length: Int, seed: Int) = ByteBuffer.wrap(noise(1, length, seed).copyOf(length))

private fun bytes(picture: Picture): ByteArray {
    val found = ByteArray(picture.width * picture.height * 3)
    val line = IntArray(picture.width)
    for (y in 0 until picture.height) {
        picture.read(0, y, picture.width, 1, line)
        for (x in 0 until picture.width) {
            for (channel in 0..2) found[(y * picture.width + x) * 3 + channel] = (line[x] shr (16 - 8 * channel)).toByte()
        }
    }
    return found
}
