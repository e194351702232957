# Checkpoints, data, results and variants; and who did what with them, in a bucket of its own.
resource "google_storage_bucket" "main" {
  name                        = "${var.project}-ztom"
  location                    = var.region
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = local.labels

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.main["storage"].id
  }

  logging {
    log_bucket        = google_storage_bucket.logs.name
    log_object_prefix = "ztom"
  }

  # what was replaced or deleted can be had back for a while
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = var.keep_days
    }
    action {
      type = "Delete"
    }
  }

  # parts of uploads that were never finished
  lifecycle_rule {
    condition {
      age = 7
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.users]
}

resource "google_storage_bucket" "logs" {
  name                        = "${var.project}-ztom-logs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  labels                      = local.labels

  versioning {
    enabled = true
  }

  encryption {
    default_kms_key_name = google_kms_crypto_key.main["storage"].id
  }

  lifecycle_rule {
    condition {
      age = 400
    }
    action {
      type = "Delete"
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.users]
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "ztom"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of Z-TOM's nodes"
  kms_key_name  = google_kms_crypto_key.main["registry"].id
  labels        = local.labels

  # a tag means one image for ever
  docker_config {
    immutable_tags = true
  }

  depends_on = [google_kms_crypto_key_iam_member.users]
}
