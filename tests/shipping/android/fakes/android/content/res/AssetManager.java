package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;

/** Files of the folder that the property `assets` names. */
public class AssetManager {
    public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(System.getProperty("assets"), name));
    }
}
