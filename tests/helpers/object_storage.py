"""Amazon's object storage on this machine: moto's server, which has the API and keeps all in memory."""
import contextlib

BUCKET = "bucket"
KEY, SECRET = "AKIA-OF-A-TEST", "a-secret-of-a-test"


class ObjectStorage:
    """endpoint: its URL. options: storage_options that lead there. environment: the same as variables."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.options = {"key": KEY, "secret": SECRET, "endpoint_url": endpoint}
        self.environment = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": endpoint,
                            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET,
                            region_name="us-east-1")

    def keys(self):
        """What the bucket holds: {key: size}."""
        found = self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {entry["Key"]: entry["Size"] for entry in found}

    def put(self, folder, prefix):
        """Uploads the files of a folder; returns their URL."""
        client = self.client()
        for path in sorted(folder.iterdir()):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"{prefix}/{path.name}")
        return f"s3://{BUCKET}/{prefix}"


@contextlib.contextmanager
def object_storage():
    """An ObjectStorage with one bucket, while the body runs."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        storage = ObjectStorage(f"http://{host}:{port}")
        storage.client().create_bucket(Bucket=BUCKET)
        yield storage
    finally:
        server.stop()
